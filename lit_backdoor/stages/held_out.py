"""Root rows that no step of a defense sees, so that it may choose by them."""

from __future__ import annotations

import torch
from torch import Tensor

from lit_backdoor.stages.inputs import Batch, StageInputs

__all__ = ["is_held_out"]


def is_held_out(stage: StageInputs, batch: Batch, share: float) -> Tensor:
    """Say which rows of a root batch are among the last ``share`` of the root set, at least one; bool ``[B]``."""
    index: Tensor = stage.data.get_view("root").index
    return torch.isin(batch["index"], index[-max(1, round(share * len(index))) :].to(batch["index"]))
