"""Low frequencies of images."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lit_backdoor.functional.precision import full, no_autocast

__all__ = ["dct_matrix", "low_pass"]


def dct_matrix(size: int, device: torch.device | None = None) -> Tensor:
    """Give the orthonormal DCT-II of vectors of a size, float32 ``[size, size]``; its transpose undoes it."""
    place = torch.arange(size, dtype=torch.float32, device=device)
    matrix = math.sqrt(2 / size) * torch.cos(math.pi / size * place[:, None] * (place + 0.5))
    matrix[0] /= math.sqrt(2)
    return matrix


def low_pass(images: Tensor, share: float) -> Tensor:
    """Keep the lowest frequencies of each channel, by the DCT.

    Args:
        images: ``[B, C, H, W]``.
        share: Share of the frequencies of each axis that is kept, in (0, 1].
    """
    with no_autocast(images):
        kept = full(images)
        for axis in (-2, -1):
            size = images.shape[axis]
            basis = dct_matrix(size, images.device)[: max(1, int(share * size))].to(kept.dtype)
            projection = basis.T @ basis
            kept = projection @ kept if axis == -2 else kept @ projection
    return kept.to(images.dtype)
