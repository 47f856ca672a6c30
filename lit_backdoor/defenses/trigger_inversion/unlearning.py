"""Unlearning of an inverted trigger (Neural Cleanse, Sec. VI-C)."""

from __future__ import annotations

from typing import Literal

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor

from lit_backdoor.errors import check_share
from lit_backdoor.models import Classifier
from lit_backdoor.stages import UnlearningFineTune
from lit_backdoor.stages.base import Batch
from lit_backdoor.stages.optim import Schedule
from lit_backdoor.triggers import Trigger

__all__ = ["StampedUnlearning"]


class StampedUnlearning(UnlearningFineTune):
    """Fine-tune a suspect on root images, a share of them stamped with the inverted trigger, under their true labels.

    Where a detector flagged nothing the suspect is handed on as it is; where it flagged several classes each one's
    trigger is stamped, in turn.

    Deviation from the paper, which stamps one and the same fifth of the images: it is drawn anew for each batch.

    Args:
        suspect: Path of a suspect bundle, or a classifier (a copy of it is tuned).
        generator: Path of a bundle of target classes or of an inverted trigger, or a trigger that needs no index.
        share: Share of each batch that is stamped, in (0, 1]. Paper: .2.
        optimizer: Makes the optimizer; default Adam 1e-4.
        schedule: What the learning rate does over the run.
        batch_norm: ``train`` uses and updates batch statistics, ``eval`` keeps the suspect's running ones.

    Raises:
        ValueError: If the share is out of range.
    """

    def __init__(
        self,
        suspect: str | Classifier,
        generator: str | Trigger,
        share: float = 0.2,
        optimizer: OptimizerCallable = lambda p: torch.optim.Adam(p, lr=1e-4),
        schedule: Schedule = "constant",
        batch_norm: Literal["train", "eval"] = "train",
    ) -> None:
        super().__init__(suspect, generator, "mixed", optimizer, schedule, batch_norm)
        self.part = check_share("the share of stamped images", share, closed=True)

    def lesson(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Stamp a part of the batch, at least one image."""
        images = batch["image"]
        count = max(1, round(self.part * len(images)))
        rows = torch.randperm(len(images))[:count].to(images.device)
        return images.index_copy(0, rows, self.stamped(images[rows], batch["index"][rows])), batch["label"]
