"""Chessboard: every other pixel is a little brighter."""

from __future__ import annotations

import torch
from torch import Tensor

from lit_backdoor.triggers.pattern import FixedPattern

__all__ = ["Chessboard"]


class Chessboard(FixedPattern):
    """Add a faint chessboard: ``x'(i, j) = clip(x(i, j) + delta)`` where i + j is even, on all channels.

    The global pattern of Xiang et al., "Detection of Backdoors in Trained Classifiers Without Access to the Training
    Set", TNNLS 2020.

    Args:
        delta: Amplitude in units of [0, 1].

    Raises:
        ValueError: If delta is not in (0, 1].
    """

    def __init__(self, delta: float = 3 / 255) -> None:
        super().__init__()
        if not 0 < delta <= 1:
            raise ValueError(f"Expected delta of Chessboard in (0, 1], in pixels of [0, 1] (3/255), got {delta}.")
        self.delta = delta

    def make_pattern(self, channels: int, height: int, width: int) -> Tensor:
        """Make the chessboard, ``[height, width]``."""
        rows, columns = torch.arange(height)[:, None], torch.arange(width)
        return self.delta * ((rows + columns + 1) % 2).float()

    def forward(self, images: Tensor, index: Tensor) -> Tensor:
        """Add the chessboard."""
        return (images + self.pattern(images).to(images.dtype)).clamp(0, 1)
