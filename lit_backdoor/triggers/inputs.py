"""What a trigger takes: a batch of float images in [0, 1]."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["check_images"]

_ROUNDING = 1e-3  # interpolation goes a little beyond [0, 1]


def check_images(images: Tensor, values: bool = True) -> None:
    """Check images that are to be stamped; NaN passes, so that a diverged net is reported by its stage.

    Args:
        images: Float ``[B, C, H, W]`` in [0, 1].
        values: Whether to check the range, which waits for the device.

    Raises:
        ValueError: If type, number of axes or range are others; says what to stamp instead.
    """
    if not images.is_floating_point():
        fix = "images.float() / 255" if images.dtype == torch.uint8 else "images.float(), scaled to [0, 1],"
        raise ValueError(f"Expected float images in [0, 1], got {images.dtype}. Stamp {fix} instead.")
    if images.ndim != 4:
        fix = "Stamp image[None] and take the first of the result." if images.ndim == 3 else "Reshape them."
        raise ValueError(f"Expected a batch of images [B, C, H, W], got {list(images.shape)}. {fix}")
    if not (values and images.numel()):
        return
    low, high = (float(value) for value in images.detach().aminmax())
    if low < -_ROUNDING or high > 1 + _ROUNDING:
        fix = "images / 255" if low >= 0 and 2 < high <= 255 else "the images before they are normalized"
        raise ValueError(f"Expected images in [0, 1], got values from {low:.3g} to {high:.3g}. Stamp {fix} instead.")
