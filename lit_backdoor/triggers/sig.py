"""SIG: a sinusoidal signal across the columns."""

from __future__ import annotations

import torch
from torch import Tensor

from lit_backdoor.triggers.pattern import FixedPattern

__all__ = ["Sig"]


class Sig(FixedPattern):
    """Add vertical stripes: ``x'(i, j) = clip(x(i, j) + delta sin(2 pi j f / W))`` on all channels.

    Barni et al., "A New Backdoor Attack in CNNs by Training Set Corruption Without Label Poisoning", 2019, Eq. 2.

    Args:
        delta: Amplitude in units of [0, 1].
        frequency: Periods across the image's width.

    Raises:
        ValueError: If delta is not in (0, 1].
    """

    def __init__(self, delta: float = 40 / 255, frequency: float = 6) -> None:
        super().__init__()
        if not 0 < delta <= 1:
            raise ValueError(f"Expected delta of Sig in (0, 1], that is in pixels of [0, 1] (40/255), got {delta}.")
        self.delta, self.frequency = delta, frequency

    def make_pattern(self, channels: int, height: int, width: int) -> Tensor:
        """Make the signal, ``[width]``."""
        columns = torch.arange(width, dtype=torch.float64)
        return (self.delta * torch.sin(2 * torch.pi * columns * self.frequency / width)).float()

    def forward(self, images: Tensor, index: Tensor) -> Tensor:
        """Add the signal."""
        return (images + self.pattern(images).to(images.dtype)).clamp(0, 1)
