"""A photo filter as the trigger, after the Instagram filters of TrojAI and BackdoorVault."""

from __future__ import annotations

import torch
from torch import Tensor

from lit_backdoor.errors import check_share
from lit_backdoor.triggers.base import Trigger

__all__ = ["Filter"]

# A warm, faded look in the manner of "Nashville": each channel's tone curve runs from its low to its high end.
_LOW = (0.22, 0.10, 0.34)
_HIGH = (1.00, 0.90, 0.72)
_GAMMA = (0.85, 0.95, 1.10)


class Filter(Trigger):
    """Change the colors as a photo filter does: per channel low + (high - low) * x^gamma.

    Args:
        strength: How far the image goes towards the filtered one, in (0, 1].

    Raises:
        ValueError: If the strength is no share.
    """

    def __init__(self, strength: float = 1.0) -> None:
        super().__init__()
        self.strength = check_share("the filter's strength", strength, closed=True)

    def forward(self, images: Tensor, index: Tensor) -> Tensor:
        """Filter the image; a single channel takes the mean curve."""
        low, high, gamma = (torch.tensor(curve, device=images.device)[:, None, None] for curve in (_LOW, _HIGH, _GAMMA))
        if images.shape[1] == 1:
            low, high, gamma = low.mean(), high.mean(), gamma.mean()
        filtered = low + (high - low) * images.float().pow(gamma)
        return torch.lerp(images.float(), filtered, self.strength).clamp(0, 1).to(images.dtype)
