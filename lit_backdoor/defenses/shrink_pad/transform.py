"""The transformation of ShrinkPad."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lit_backdoor.recipe import Recorded

__all__ = ["ShrinkAndPad"]


class ShrinkAndPad(Recorded, nn.Module):
    """Shrink images by some pixels, and pad them with zeros to their size at a place drawn for each image.

    The place is a function of the seed and the image, so a test gives the same numbers again, whatever the batches.

    Args:
        pixels: How many pixels images lose in height and width, at least 1.
        seed: Seed of the places.

    Raises:
        ValueError: If ``pixels`` is not positive; when called, if images are not larger than it.
    """

    def __init__(self, pixels: int = 4, seed: int = 0) -> None:
        super().__init__()
        if pixels < 1:
            raise ValueError(f"Expected pixels of at least 1, got {pixels}.")
        self.pixels = pixels
        self.seed = seed

    def forward(self, images: Tensor) -> Tensor:
        """Transform images ``[B, C, H, W]`` in [0, 1]."""
        height, width = (side - self.pixels for side in images.shape[-2:])
        if min(height, width) < 1:
            raise ValueError(
                f"Expected images of more than {self.pixels} pixels a side, got {list(images.shape[-2:])}. Set pixels."
            )
        small = F.interpolate(images, (height, width), mode="bilinear", antialias=True).clamp(0, 1)
        padded, places = images.new_zeros(images.shape), self.places(images)
        for place in torch.unique(places).tolist():
            top, left = divmod(place, self.pixels + 1)
            rows = places == place
            padded[rows, :, top : top + height, left : left + width] = small[rows]
        return padded

    def places(self, images: Tensor) -> Tensor:
        """Draw a place for each image, int64 ``[B]``, in rows of pixels + 1."""
        total = (images * 255).round().long().flatten(1).sum(1) + 7919 * self.seed
        return (total * 2654435761 % 2**32) // 2**8 % (self.pixels + 1) ** 2  # Knuth's multiplicative hash
