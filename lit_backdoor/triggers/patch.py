"""BadNets: a small patch that replaces pixels."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from lit_backdoor.errors import unknown
from lit_backdoor.triggers.pattern import FixedPattern, seeded_noise
from lit_backdoor.triggers.picture import masked, overlay, read_pattern

__all__ = ["Patch"]

PATTERNS = ("white", "black", "checkerboard", "noise")
PLACES = ("top_left", "top_right", "bottom_left", "bottom_right", "center")


class Patch(FixedPattern):
    """Replace a rectangle of the image: ``x' = (1 - m) x + m t``.

    Gu et al., "BadNets: Identifying Vulnerabilities in the Machine Learning Model Supply Chain", 2017.

    Args:
        size: Side in pixels, or (height, width).
        place: (row, column) of the patch's upper left pixel, negative ones counted from the image's end as in
            Python; or ``"top_left"``, ``"top_right"``, ``"bottom_left"``, ``"bottom_right"``, ``"center"``.
        pattern: ``"white"``, ``"black"``, ``"checkerboard"`` (white first), ``"noise"`` (uniform, seeded), a color as
            three numbers in [0, 1], or the path of an image or ``.npy`` file, resized to the patch, whose alpha is a
            mask (see `read_pattern`).
        seed: Seed of the noise.
        mask: Path of an image or ``.npy`` file that says where the pattern covers the patch, and how much, in [0, 1];
            None for everywhere.

    Raises:
        ValueError: If an argument has no meaning, or (on call) the patch does not fit the images.
    """

    def __init__(
        self,
        size: int | tuple[int, int] = 3,
        place: str | tuple[int, int] = "bottom_right",
        pattern: str | tuple[float, float, float] = "white",
        seed: int = 0,
        mask: str | None = None,
    ) -> None:
        super().__init__()
        self.height, self.width = (size, size) if isinstance(size, int) else size
        if min(self.height, self.width) < 1:
            raise ValueError(f"Expected a patch of at least one pixel, got size {size}.")
        if isinstance(place, str) and place not in PLACES:
            raise unknown("place of a patch", place, PLACES)
        if isinstance(pattern, str):
            if pattern not in PATTERNS and not Path(pattern).suffix:
                raise unknown("pattern of a patch (or give the path of an image file)", pattern, PATTERNS)
        elif len(pattern) != 3 or not all(0 <= part <= 1 for part in pattern):
            raise ValueError(f"Expected a color as three numbers in [0, 1], got {pattern}.")
        self.place, self.fill, self.seed, self.mask = place, pattern, seed, mask

    def corner(self, height: int, width: int) -> tuple[int, int]:
        """Give the (row, column) of the patch's upper left pixel in images of this size.

        Raises:
            ValueError: If the patch does not fit.
        """
        room = height - self.height, width - self.width
        if self.place == "center":
            row, column = room[0] // 2, room[1] // 2
        elif isinstance(self.place, str):
            row = 0 if self.place.startswith("top") else room[0]
            column = 0 if self.place.endswith("left") else room[1]
        else:
            row, column = self.place
            row, column = row + height * (row < 0), column + width * (column < 0)
        if not (0 <= row <= room[0] and 0 <= column <= room[1]):
            raise ValueError(
                f"Expected a patch inside the images, got a {self.height}x{self.width} patch at {self.place} on "
                f"{height}x{width} images. Choose a smaller size or another place."
            )
        return row, column

    @property
    def from_file(self) -> bool:
        """Whether the pattern or its mask is a file."""
        return self.mask is not None or (isinstance(self.fill, str) and self.fill not in PATTERNS)

    def make_pattern(self, channels: int, height: int, width: int) -> Tensor:
        """Make the patch, ``[channels, self.height, self.width]``, with its mask as one more channel."""
        return masked(self._color(channels), channels, self.mask)

    def _color(self, channels: int) -> Tensor:
        shape = (channels, self.height, self.width)
        if not isinstance(self.fill, str):
            color = torch.tensor(self.fill, dtype=torch.float32)
            if channels not in (1, 3):
                raise ValueError(f"Expected images with 1 or 3 channels for a patch of a color, got {channels}.")
            return (color if channels == 3 else color.mean().reshape(1))[:, None, None].expand(shape).clone()
        if self.fill == "noise":
            return seeded_noise("uniform", self.seed, *shape)
        if self.fill == "checkerboard":
            rows, columns = torch.arange(self.height)[:, None], torch.arange(self.width)
            return ((rows + columns + 1) % 2).float().expand(shape).clone()
        if self.fill in ("white", "black"):
            return torch.full(shape, float(self.fill == "white"))
        return read_pattern(self.fill, *shape)

    def forward(self, images: Tensor, index: Tensor) -> Tensor:
        """Put the patch on the images."""
        row, column = self.corner(images.shape[-2], images.shape[-1])
        stamped = images.clone()
        window = stamped[..., row : row + self.height, column : column + self.width]
        pattern = self.pattern(images)
        window.copy_(pattern if len(pattern) == images.shape[1] else overlay(window, pattern))
        return stamped
