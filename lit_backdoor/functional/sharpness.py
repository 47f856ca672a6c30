"""The change of weights that raises a loss most, for minimization that seeks flat minima (SAM)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["sharpest_change"]


def sharpest_change(
    weights: Sequence[Tensor], gradients: Sequence[Tensor], radius: float, adaptive: bool = True
) -> list[Tensor]:
    r"""Give the change of weights that raises the loss most, to first order.

    .. math:: \epsilon = \rho \frac{T_w^2\, g}{\|T_w\, g\|_2}, \qquad T_w = \mathrm{diag}(|w|)

    maximizes :math:`\epsilon^\top g` under :math:`\|T_w^{-1} \epsilon\|_2 \le \rho` (FT-SAM, Zhu et al. 2023, after
    ASAM, Kwon et al. 2021, Eq. 8). Not ``adaptive``, T is the identity (SAM, Foret et al. 2021, Eq. 2).

    Args:
        weights: w, tensors of any shapes.
        gradients: g, one of the same shape for each.
        radius: rho > 0.
        adaptive: Whether each weight's change is measured relative to its size.

    Returns:
        The changes, of the weights' shapes, without gradient; 0 where all gradients are.
    """
    with torch.no_grad():
        scales = [weight.abs() if adaptive else torch.ones_like(weight) for weight in weights]
        scaled = [scale * gradient for scale, gradient in zip(scales, gradients, strict=True)]
        length = torch.stack([part.square().sum() for part in scaled]).sum().sqrt()
        factor = radius / length.clamp(min=1e-12)
        return [factor * scale * part for scale, part in zip(scales, scaled, strict=True)]
