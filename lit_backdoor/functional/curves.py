"""Curves through weight space."""

from __future__ import annotations

from torch import Tensor

__all__ = ["quadratic_bezier"]


def quadratic_bezier(start: Tensor, bend: Tensor, end: Tensor, place: float) -> Tensor:
    r"""Give a point of a quadratic Bezier curve (Garipov et al., NeurIPS 2018).

    .. math:: \phi(t) = (1 - t)^2 w_1 + 2 t (1 - t)\, \theta + t^2 w_2

    Args:
        start: w_1, where the curve begins.
        bend: Theta, which it bends toward.
        end: w_2, where it ends; all of one shape.
        place: t, in [0, 1].
    """
    return (1 - place) ** 2 * start + 2 * place * (1 - place) * bend + place**2 * end
