"""Convolution by regions: every region of a feature map has kernels of its own (MARTINI, Tao et al., Eq. 2 and 3)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["identity_kernels", "region_bounds", "regional_conv", "regions_per_side"]


def regions_per_side(height: int, width: int) -> int:
    r"""Give MARTINI's number of regions per side of a feature map: :math:`z = \lceil \max(H, W) / 32 \rceil + 2`."""
    return math.ceil(max(height, width) / 32) + 2


def region_bounds(size: int, regions: int) -> list[int]:
    """Cut ``size`` positions into regions whose lengths differ by at most one; gives the ``regions + 1`` bounds.

    The paper's own example, 32 positions and 3 regions, does not divide evenly.

    Raises:
        ValueError: If there are more regions than positions.
    """
    if not 1 <= regions <= size:
        raise ValueError(
            f"Expected from 1 to {size} regions per side for a feature map of {size} positions, got {regions}. Set "
            "regions lower, or cut the encoder at an earlier layer."
        )
    return [round(number * size / regions) for number in range(regions + 1)]


def regional_conv(features: Tensor, kernels: Tensor) -> Tensor:
    r"""Convolve every region by its own kernels (Eq. 2 and 3): :math:`r_{ij} = U_{ij} \otimes a'_{ij}`.

    Regions are padded with zeros, so that none sees another one. A kernel of even size is padded more at the end, as
    in the paper's Appendix A.

    Args:
        features: a', ``[B, C, H, W]``.
        kernels: U, ``[z, z, C, C, m, m]``: the regions' rows and columns, then a convolution's weight.

    Returns:
        a'', shaped like the features.

    Raises:
        ValueError: If there are more regions than positions on a side.
    """
    tops, lefts = (region_bounds(size, len(kernels)) for size in features.shape[-2:])
    bands = [
        torch.cat(
            [
                F.conv2d(features[..., top:bottom, left:right], kernel, padding="same")
                for left, right, kernel in zip(lefts, lefts[1:], row, strict=False)
            ],
            dim=-1,
        )
        for top, bottom, row in zip(tops, tops[1:], kernels, strict=False)
    ]
    return torch.cat(bands, dim=-2)


def identity_kernels(channels: int, regions: int, size: int = 3) -> Tensor:
    """Make kernels by which `regional_conv` changes nothing, ``[z, z, C, C, m, m]``; our choice of a start.

    Raises:
        ValueError: If a number is not positive.
    """
    if min(channels, regions, size) < 1:
        raise ValueError(
            f"Expected channels, regions and a kernel size of at least 1, got {channels}, {regions} and {size}."
        )
    kernels = torch.zeros(regions, regions, channels, channels, size, size)
    middle = (size - 1) // 2  # where zero padding puts the position itself
    kernels[..., middle, middle] = torch.eye(channels)
    return kernels
