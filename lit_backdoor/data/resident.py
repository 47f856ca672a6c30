"""Pixels that stay on an accelerator, so that a batch is a few numbers for each of its rows."""

from __future__ import annotations

import torch
from torch import Tensor

from lit_backdoor.data.sources.base import Rows, TensorRows

__all__ = ["ResidentPixels", "is_accelerator"]


def is_accelerator(device: torch.device) -> bool:
    """Say whether images would have to travel to a device."""
    return device.type not in ("cpu", "meta")


class ResidentPixels:
    """Copies a part of a source to an accelerator once, and looks images up there: the same as the loader would send.

    Args:
        budget: Bytes that a part may take; larger ones stay where they are.
    """

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self._kept: dict[tuple[Rows, torch.device], Tensor] = {}

    def fit(self, rows: Rows, device: torch.device) -> bool:
        """Say whether a part is to be kept on a device: it sits in memory, and within the budget."""
        return is_accelerator(device) and isinstance(rows, TensorRows) and rows.pixels.nbytes <= self.budget

    def images(self, rows: Rows, index: Tensor) -> Tensor:
        """Look rows up on the index's device, uint8 ``[B, 3, H, W]``."""
        assert isinstance(rows, TensorRows)  # as `fit` asks
        key = rows, index.device
        if key not in self._kept:
            with torch.inference_mode(False):  # copied while validating, they must still serve in training
                self._kept[key] = rows.pixels.to(index.device)
        return self._kept[key].index_select(0, index)
