"""ATClean's motivating experiment (Table 1): one trigger under true labels removes, or does not remove, another."""

from __future__ import annotations

from typing import Literal

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor

from lit_backdoor.models import Classifier
from lit_backdoor.stages.base import Batch
from lit_backdoor.stages.fine_tune import FineTune
from lit_backdoor.stages.optim import Schedule
from lit_backdoor.triggers import Trigger

__all__ = ["StampedFineTune"]


class StampedFineTune(FineTune):
    """Fine-tune a suspect on clean and stamped root images, both under their true labels (ATClean, Table 1).

    Args:
        suspect: Path of a suspect bundle, or a classifier (a copy of it is tuned).
        trigger: What is stamped on the images.
        optimizer: Makes the optimizer; default Adam 1e-4.
        schedule: What the learning rate does over the run.
        batch_norm: ``train`` uses and updates batch statistics, ``eval`` keeps the suspect's running ones.
    """

    def __init__(
        self,
        suspect: str | Classifier,
        trigger: Trigger,
        optimizer: OptimizerCallable = lambda p: torch.optim.Adam(p, lr=1e-4),
        schedule: Schedule = "constant",
        batch_norm: Literal["train", "eval"] = "train",
    ) -> None:
        super().__init__(suspect, optimizer, schedule, batch_norm)
        self.trigger = trigger

    def lesson(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Give every image twice, clean and stamped."""
        images = batch["image"]
        return torch.cat((images, self.trigger(images, batch["index"]))), batch["label"].repeat(2)
