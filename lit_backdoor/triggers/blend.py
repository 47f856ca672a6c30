"""Blend: a second image shines through."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, cast

from torch import Tensor

from lit_backdoor.errors import check_share, unknown
from lit_backdoor.triggers.pattern import FixedPattern, read_image, seeded_noise

__all__ = ["Blend"]


class Blend(FixedPattern):
    """Mix a fixed pattern into the whole image: ``x' = (1 - alpha) x + alpha t``.

    Chen et al., "Targeted Backdoor Attacks on Deep Learning Systems Using Data Poisoning", 2017.

    Args:
        alpha: Weight of the pattern, in (0, 1].
        pattern: ``"uniform"`` (noise in [0, 1]) or ``"gaussian"`` (N(1/2, 1/4²), clipped), drawn at the images' size;
            or the path of an image file, resized to the images' size.
        seed: Seed of the noise.

    Raises:
        ValueError: If alpha is out of range, the pattern is unknown, or (on first call) the file cannot be read.
    """

    def __init__(self, alpha: float = 0.2, pattern: str = "uniform", seed: int = 0) -> None:
        super().__init__()
        if pattern not in ("uniform", "gaussian") and not Path(pattern).suffix:
            raise unknown("pattern of Blend (or give the path of an image file)", pattern, ("uniform", "gaussian"))
        self.alpha = check_share("alpha of Blend", alpha, closed=True)
        self.picture, self.seed = pattern, seed

    def make_pattern(self, channels: int, height: int, width: int) -> Tensor:
        """Make the picture to blend in, ``[channels, height, width]``."""
        if self.picture in ("uniform", "gaussian"):
            kind = cast(Literal["uniform", "gaussian"], self.picture)
            return seeded_noise(kind, self.seed, channels, height, width)
        return read_image(self.picture, channels, height, width)

    def forward(self, images: Tensor, index: Tensor) -> Tensor:
        """Blend the pattern in."""
        pattern = self.pattern(images).to(images.dtype)
        return ((1 - self.alpha) * images + self.alpha * pattern).clamp(0, 1)
