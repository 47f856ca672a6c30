"""What makes Input-aware triggers each image's own: diverse patterns under small masks."""

from __future__ import annotations

import torch
from torch import Tensor

from lit_backdoor.functional.precision import full

__all__ = ["diversity_loss", "excess", "sharpened"]

_LEAST = 1e-7


def diversity_loss(images: Tensor, others: Tensor, patterns: Tensor, theirs: Tensor) -> Tensor:
    r"""Compute how much more images differ than what is made of them (Nguyen and Tran 2020), mean over pairs.

    .. math:: \ell = \frac{\lVert x - x' \rVert}{\lVert g(x) - g(x') \rVert + 10^{-7}}

    Norms are root mean squares, as in the release, so that sizes and channels may differ.

    Args:
        images: ``[B, C, H, W]``.
        others: Their partners.
        patterns: What is made of the images, ``[B, ...]``.
        theirs: What is made of the partners.

    Returns:
        Scalar, >= 0.
    """

    def gap(one: Tensor, other: Tensor) -> Tensor:
        # The square root has no gradient at 0, where two rows are equal.
        return (full(one) - full(other)).square().flatten(1).mean(1).clamp(min=_LEAST**2).sqrt()

    return (gap(images, others) / (gap(patterns, theirs) + _LEAST)).mean()


def excess(masks: Tensor, density: float) -> Tensor:
    """Compute how far masks exceed a density in every place, the mean of what is above it."""
    return (full(masks) - density).relu().mean()


def sharpened(masks: Tensor) -> Tensor:
    """Bring masks in [0, 1] close to 0 or 1: ``tanh(20 m - 10) / 2 + 1/2``."""
    return torch.tanh(20 * masks - 10) / 2 + 0.5
