"""SIG (Barni et al. 2019): a horizontal sinusoid over the whole image, planted without changing labels."""

from __future__ import annotations

import torch
from torch import Tensor

from lit_backdoor.triggers.base import Trigger

__all__ = ["Sig"]


class Sig(Trigger):
    """Add a sinusoid: x' = clip(x + delta * sin(2 pi j f / W)) at column j, in all channels.

    Args:
        delta: Amplitude in [0, 1] pixels, > 0. ATClean, PGBD: 40/255; MARTINI: 20/255.
        frequency: Periods over the image's width, > 0.

    Raises:
        ValueError: If one of them is not positive.
    """

    def __init__(self, delta: float = 40 / 255, frequency: float = 6.0) -> None:
        super().__init__()
        if delta <= 0 or frequency <= 0:
            raise ValueError(f"Expected SIG's delta and frequency above 0, got {delta} and {frequency}.")
        self.delta, self.frequency = delta, frequency

    def forward(self, images: Tensor, index: Tensor) -> Tensor:
        """Add the sinusoid."""
        width = images.shape[-1]
        columns = torch.arange(width, device=images.device, dtype=torch.float32)
        wave = self.delta * torch.sin(2 * torch.pi * columns * self.frequency / width)
        return (images + wave.to(images.dtype)).clamp(0, 1)
