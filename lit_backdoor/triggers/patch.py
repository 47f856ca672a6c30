"""BadNets (Gu et al. 2017): a small pattern at a fixed place."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from lit_backdoor.triggers.base import Trigger
from lit_backdoor.triggers.patterns import checkerboard, picture, uniform_noise

__all__ = ["Patch"]


class Patch(Trigger):
    """Put a square pattern on the image: x' = (1 - m) x + m t.

    Variants: ATClean 5x5 white at (6, 6); BTI-DBF 2x2 random at the lower right; BackdoorBench 3x3 white there.

    Args:
        size: Side of the square in pixels.
        place: Row and column of its upper left corner; negative ones count from the lower right, where (-1, -1) puts
            the square's last pixel on the image's last.
        pattern: ``white``, ``color``, ``checkerboard``, ``noise`` (drawn from ``seed``) or ``file``.
        color: RGB in [0, 1], for ``color``.
        seed: For ``noise``.
        file: Path of an image, for ``file``.

    Raises:
        ValueError: If the arguments do not fit each other, or later, if the square does not fit the image.
    """

    def __init__(
        self,
        size: int = 5,
        place: tuple[int, int] = (6, 6),
        pattern: Literal["white", "color", "checkerboard", "noise", "file"] = "white",
        color: tuple[float, float, float] = (1.0, 1.0, 0.0),
        seed: int = 0,
        file: str | None = None,
    ) -> None:
        super().__init__()
        if size < 1:
            raise ValueError(f"Expected the patch's size to be at least 1 pixel, got {size}.")
        if pattern == "file" and file is None:
            raise ValueError("Expected file= to name an image for a patch with pattern='file'.")
        if not all(0 <= value <= 1 for value in color):
            raise ValueError(f"Expected the patch's color in [0, 1], got {tuple(color)}.")
        self.size, self.place, self.pattern, self.color, self.seed, self.file = size, place, pattern, color, seed, file
        self._made: dict[tuple[int, torch.device], Tensor] = {}

    def forward(self, images: Tensor, index: Tensor) -> Tensor:
        """Stamp the pattern."""
        height, width = images.shape[-2:]
        top, left = (
            at + side - self.size + 1 if at < 0 else at for at, side in zip(self.place, (height, width), strict=True)
        )
        if top < 0 or left < 0 or top + self.size > height or left + self.size > width:
            raise ValueError(
                f"Expected a patch inside the image, got {self.size}x{self.size} at {tuple(self.place)} on an image of "
                f"{height}x{width}. Choose a smaller size or another place."
            )
        stamped = images.clone()
        stamped[:, :, top : top + self.size, left : left + self.size] = self._made_for(images).to(images.dtype)
        return stamped

    def _made_for(self, images: Tensor) -> Tensor:
        where = (images.shape[1], images.device)
        if where not in self._made:
            self._made[where] = self._draw(images.shape[1]).to(images.device)
        return self._made[where]

    def _draw(self, channels: int) -> Tensor:
        if self.pattern == "white":
            return torch.ones(channels, self.size, self.size)
        if self.pattern == "color":
            color = torch.tensor(self.color) if channels == 3 else torch.tensor(self.color).mean().repeat(channels)
            return color[:, None, None].expand(channels, self.size, self.size).clone()
        if self.pattern == "checkerboard":
            return checkerboard(channels, self.size, self.size)
        if self.pattern == "noise":
            return uniform_noise(channels, self.size, self.size, self.seed)
        return picture(str(self.file), channels, self.size, self.size)
