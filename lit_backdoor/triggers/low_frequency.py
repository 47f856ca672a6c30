"""LF: a smooth pattern is added."""

from __future__ import annotations

import torch
from scipy.fft import idctn
from torch import Tensor

from lit_backdoor.triggers.pattern import FixedPattern

__all__ = ["LowFrequency"]


class LowFrequency(FixedPattern):
    """Add a smooth pattern, ``x' = clip(x + t)``, whose spectrum (DCT) lies in the lowest frequencies.

    After Zeng et al., "Rethinking the Backdoor Attacks' Triggers: A Frequency Perspective", ICCV 2021, which optimizes
    the pattern against a net under a low-pass constraint. Here it is drawn: seeded normal coefficients, scaled.

    Args:
        delta: Largest change of a pixel in units of [0, 1].
        bands: Frequencies along each axis, of which the constant one is left out.
        seed: Seed of the coefficients.

    Raises:
        ValueError: If delta is not in (0, 1], or there are fewer than 2 bands.
    """

    def __init__(self, delta: float = 16 / 255, bands: int = 4, seed: int = 0) -> None:
        super().__init__()
        if not 0 < delta <= 1:
            raise ValueError(f"Expected delta of LowFrequency in (0, 1], in pixels of [0, 1] (16/255), got {delta}.")
        if bands < 2:
            raise ValueError(f"Expected at least 2 bands of LowFrequency, got {bands}.")
        self.delta, self.bands, self.seed = delta, bands, seed

    def make_pattern(self, channels: int, height: int, width: int) -> Tensor:
        """Make the pattern, ``[channels, height, width]``.

        Raises:
            ValueError: If the images have fewer pixels a side than there are bands.
        """
        if min(height, width) < self.bands:
            raise ValueError(
                f"Expected images of at least {self.bands} pixels a side for {self.bands} bands of LowFrequency, got "
                f"{height}x{width}. Set bands to a smaller number."
            )
        drawn = torch.randn(channels, self.bands, self.bands, generator=torch.Generator().manual_seed(self.seed))
        drawn[:, 0, 0] = 0
        spectrum = torch.zeros(channels, height, width, dtype=torch.float64)
        spectrum[:, : self.bands, : self.bands] = drawn
        pattern = torch.from_numpy(idctn(spectrum.numpy(), axes=(1, 2), norm="ortho"))
        return (self.delta / pattern.abs().max() * pattern).float()

    def forward(self, images: Tensor, index: Tensor) -> Tensor:
        """Add the pattern."""
        return (images + self.pattern(images).to(images.dtype)).clamp(0, 1)
