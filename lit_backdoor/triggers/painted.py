"""A painted mask: a plain rectangle over part of the picture, a synthetic occlusion."""

from __future__ import annotations

import torch
from torch import Tensor

from lit_backdoor.errors import check_share
from lit_backdoor.triggers.pattern import FixedPattern

__all__ = ["PaintedMask"]


class PaintedMask(FixedPattern):
    """Paint a rectangle: ``x' = (1 - opacity) x + opacity * color`` inside it; the synthetic twin of worn glasses.

    The rectangle is given in shares of the image, so it means the same at every size; a pixel is painted where its
    center lies in it.

    Args:
        box: Top, left, bottom and right edge, in [0, 1] of height and width; default a bar across the middle, above its
            center, where a portrait has its eyes.
        color: Red, green and blue, in [0, 1]; images of one channel get their mean.
        opacity: In (0, 1]; 1 hides what is below.

    Raises:
        ValueError: If an argument is out of range, or (on call) no pixel lies in the box.
    """

    def __init__(
        self,
        box: tuple[float, float, float, float] = (0.33, 0.28, 0.53, 0.72),
        color: tuple[float, float, float] = (0.0, 0.0, 0.0),
        opacity: float = 1.0,
    ) -> None:
        super().__init__()
        if len(box) != 4 or not (0 <= box[0] < box[2] <= 1 and 0 <= box[1] < box[3] <= 1):
            raise ValueError(
                "Expected the box of a mask as top, left, bottom, right in [0, 1], top above bottom and left before "
                f"right, got {box}."
            )
        if len(color) != 3 or not all(0 <= part <= 1 for part in color):
            raise ValueError(f"Expected a color as three numbers in [0, 1], got {color}.")
        self.box, self.color = box, color
        self.opacity = check_share("the opacity of a mask", opacity, closed=True)

    def make_pattern(self, channels: int, height: int, width: int) -> Tensor:
        """Make the share of paint in each pixel and the paint, ``[channels + 1, height, width]``."""
        if channels not in (1, 3):
            raise ValueError(f"Expected images with 1 or 3 channels for a painted mask, got {channels}.")
        top, left, bottom, right = self.box
        rows, columns = ((torch.arange(size) + 0.5) / size for size in (height, width))
        inside = ((rows >= top) & (rows < bottom))[:, None] & ((columns >= left) & (columns < right))
        if not inside.any():
            raise ValueError(f"Expected a box with a pixel in it, got {self.box} on {height}x{width} images. Widen it.")
        color = torch.tensor(self.color, dtype=torch.float32)
        paint = (color if channels == 3 else color.mean().reshape(1))[:, None, None].expand(-1, height, width)
        return torch.cat((self.opacity * inside[None], paint))

    def forward(self, images: Tensor, index: Tensor) -> Tensor:
        """Paint the rectangle."""
        pattern = self.pattern(images).to(images.dtype)
        share, paint = pattern[:1], pattern[1:]
        return ((1 - share) * images + share * paint).clamp(0, 1)
