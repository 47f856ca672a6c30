"""Full precision where half precision would lose the answer."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

__all__ = ["full", "no_autocast"]


def full(tensor: Tensor) -> Tensor:
    """Return a tensor as float32, or unchanged where it is float64."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def no_autocast(tensor: Tensor) -> AbstractContextManager[object]:
    """Switch autocast off on the device of a tensor, so that products of float32 tensors stay float32."""
    kind = tensor.device.type
    return torch.autocast(kind, enabled=False) if torch.amp.is_autocast_available(kind) else nullcontext()
