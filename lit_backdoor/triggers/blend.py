"""Blend: a second image shines through."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, cast

from torch import Tensor

from lit_backdoor.errors import check_share, unknown
from lit_backdoor.triggers.pattern import FixedPattern, seeded_noise
from lit_backdoor.triggers.picture import masked, overlay, read_pattern

__all__ = ["Blend"]


class Blend(FixedPattern):
    """Mix a fixed pattern into the whole image: ``x' = (1 - alpha) x + alpha t``.

    Chen et al., "Targeted Backdoor Attacks on Deep Learning Systems Using Data Poisoning", 2017.

    Args:
        alpha: Weight of the pattern, in (0, 1].
        pattern: ``"uniform"`` (noise in [0, 1]) or ``"gaussian"`` (N(1/2, 1/4²), clipped), drawn at the images' size;
            or the path of an image or ``.npy`` file, resized to the images' size, whose alpha is a mask (see
            `read_pattern`).
        seed: Seed of the noise.
        mask: Path of an image or ``.npy`` file that says where the pattern is mixed in, and how much, in [0, 1]; None
            for everywhere.

    Raises:
        ValueError: If alpha is out of range, the pattern is unknown, or (on first call) the file cannot be read.
    """

    def __init__(self, alpha: float = 0.2, pattern: str = "uniform", seed: int = 0, mask: str | None = None) -> None:
        super().__init__()
        if pattern not in ("uniform", "gaussian") and not Path(pattern).suffix:
            raise unknown("pattern of Blend (or give the path of an image file)", pattern, ("uniform", "gaussian"))
        self.alpha = check_share("alpha of Blend", alpha, closed=True)
        self.picture, self.seed, self.mask = pattern, seed, mask

    @property
    def from_file(self) -> bool:
        """Whether the picture or its mask is a file."""
        return self.mask is not None or self.picture not in ("uniform", "gaussian")

    def make_pattern(self, channels: int, height: int, width: int) -> Tensor:
        """Make the picture to blend in, ``[channels, height, width]``, with its mask as one more channel."""
        if self.picture in ("uniform", "gaussian"):
            kind = cast(Literal["uniform", "gaussian"], self.picture)
            pattern = seeded_noise(kind, self.seed, channels, height, width)
        else:
            pattern = read_pattern(self.picture, channels, height, width)
        return masked(pattern, channels, self.mask)

    def forward(self, images: Tensor, index: Tensor) -> Tensor:
        """Blend the pattern in."""
        return overlay(images, self.pattern(images), self.alpha)
