"""One-layer transformations: each pixel becomes a linear map of itself and its neighborhood.

What ABS (Liu et al., CCS 2019) inverts for triggers that are no patch, and DFST (Cheng et al., AAAI 2021) trains on.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["identity_map", "neighborhood", "transformed"]


def neighborhood(images: Tensor, side: int = 11) -> Tensor:
    """Give each pixel with the largest, the smallest and the mean value of each channel in a square around it.

    Args:
        images: ``[B, C, H, W]``.
        side: Side of the square, odd. At the border only pixels of the image count.

    Returns:
        ``[B, 4 C, H, W]``.
    """
    pad = side // 2
    most, least = F.max_pool2d(images, side, 1, pad), -F.max_pool2d(-images, side, 1, pad)
    mean = F.avg_pool2d(images, side, 1, pad, count_include_pad=False)
    return torch.cat((images, most, least, mean), 1)


def identity_map(channels: int) -> Tensor:
    """Give the map ``[C, 4 C]`` that changes no image."""
    return torch.eye(channels, 4 * channels)


def transformed(around: Tensor, weights: Tensor) -> Tensor:
    """Apply maps, and stay in [0, 1].

    Args:
        around: What `neighborhood` gives, ``[B, 4 C, H, W]``.
        weights: One map for all images, ``[C, 4 C]``, or one for each, ``[B, C, 4 C]``.

    Returns:
        ``[B, C, H, W]``.
    """
    mapped = weights.to(around) @ around.flatten(2)
    return mapped.view(*mapped.shape[:2], *around.shape[2:]).clamp(0, 1)
