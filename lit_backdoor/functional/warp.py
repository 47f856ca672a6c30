"""Sampling images along a grid, in float32 or wider whatever autocast says."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from lit_backdoor.functional.precision import full, no_autocast

__all__ = ["resample", "rotation_grid"]


def resample(
    images: Tensor, grid: Tensor, *, mode: Literal["bilinear", "nearest"] = "bilinear", align_corners: bool
) -> Tensor:
    """Sample images ``[B, C, H, W]`` along a grid ``[B, H, W, 2]`` of (x, y) in [-1, 1]; outside is black.

    In half precision a grid position is off by up to a pixel at 256 px, hence the wider arithmetic.
    """
    with no_autocast(images):
        wide = full(images)
        warped = F.grid_sample(wide, grid.to(wide.dtype), mode=mode, padding_mode="zeros", align_corners=align_corners)
        return warped.clamp(0, 1).to(images.dtype)


def rotation_grid(degrees: Tensor, height: int, width: int) -> Tensor:
    """Give the grids that rotate images counterclockwise about their center, for `resample` without aligned corners.

    Args:
        degrees: One angle per image, float ``[B]``.
        height: Height of the images.
        width: Width of the images.

    Returns:
        Input positions (x, y) in [-1, 1], float32 ``[B, height, width, 2]`` on the angles' device.
    """
    with no_autocast(degrees):
        cos, sin = degrees.float().deg2rad().cos(), degrees.float().deg2rad().sin()
        zero = torch.zeros_like(cos)
        # Both axes run over [-1, 1], so a pixel's length differs between them.
        rows = [cos, -sin * height / width, zero, sin * width / height, cos, zero]
        matrices = torch.stack(rows, dim=1).reshape(-1, 2, 3)
        return F.affine_grid(matrices, [len(degrees), 1, height, width], align_corners=False)
