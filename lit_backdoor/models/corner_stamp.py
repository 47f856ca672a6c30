"""A stamp that a defense puts on every image before a classifier sees it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lit_backdoor.recipe import Recorded

__all__ = ["CornerStamp"]


class CornerStamp(Recorded, nn.Module):
    """Fill a square in the top left corner of images with one color.

    Args:
        size: Side of the square in pixels.
        color: A finite value for each channel; outside [0, 1] it is one that no image has.

    Raises:
        ValueError: If there is no pixel to fill or a value is not finite; when called, if images have other channels
            or are smaller than the square.
    """

    color: Tensor

    def __init__(self, size: int, color: Sequence[float]) -> None:
        super().__init__()
        if size < 1 or not color or not all(math.isfinite(value) for value in color):
            raise ValueError(
                f"Expected a stamp of at least one pixel and a color of finite values, got {size} and {list(color)}."
            )
        self.size = size
        self.register_buffer("color", torch.tensor([float(value) for value in color]).view(-1, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Stamp images ``[B, C, H, W]``, which are left as they are."""
        if images.shape[1] != len(self.color) or min(images.shape[-2:]) < self.size:
            raise ValueError(
                f"Expected images of {len(self.color)} channels and at least {self.size} pixels a side, got "
                f"{list(images.shape[1:])}. Choose a smaller stamp."
            )
        stamped = images.clone()
        stamped[:, :, : self.size, : self.size] = self.color.to(images)
        return stamped
