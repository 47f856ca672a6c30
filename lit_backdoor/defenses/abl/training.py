"""ABL's trainings: before isolation, on the rows that were not isolated, and, in two forms, against those that were."""

from __future__ import annotations

from typing import ClassVar

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor
from torch.nn import functional as F

from lit_backdoor.functional.abl import local_gradient_ascent
from lit_backdoor.models import Classifier
from lit_backdoor.stages.base import Batch
from lit_backdoor.stages.from_scratch import FromScratch
from lit_backdoor.stages.optim import Schedule, sgd_from_scratch
from lit_backdoor.stages.repair import FineTune

__all__ = ["ABLAscent", "ABLIsolation", "ABLTraining", "ABLUnlearning"]


class ABLIsolation(FromScratch):
    """Train anew by local gradient ascent: the loss of clean rows stays near gamma, of poisoned ones falls.

    The rows with the lowest loss are then isolated by `LowestLoss`.

    Args:
        suspect: Path of a suspect bundle, or a classifier; only its architecture is used.
        gamma: Loss level that rows are held at, in nats. Paper: .5.
        optimizer: Makes the optimizer; default SGD, Nesterov .9, learning rate .1, weight decay 5e-4.
        schedule: What the learning rate does over the run.
    """

    def __init__(
        self,
        suspect: str | Classifier,
        gamma: float = 0.5,
        optimizer: OptimizerCallable = sgd_from_scratch,
        schedule: Schedule = "one_cycle",
    ) -> None:
        super().__init__(suspect, optimizer, schedule)
        self.gamma = gamma

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Compute the loss of local gradient ascent."""
        return {"loss": local_gradient_ascent(self.classifier(batch["image"]), batch["label"], self.gamma)}


class ABLTraining(FineTune):
    """Train on the rows of the questioned dataset that were not isolated; ``data.suspicious`` names the others.

    Arguments as in `FineTune`; the suspect is the net that isolated them.
    """

    views: ClassVar[tuple[str, ...]] = ("train",)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Compute the cross-entropy of the rows that were not isolated; nothing where there are none."""
        kept = ~self.isolated(batch)
        return super().losses({"image": batch["image"][kept], "label": batch["label"][kept]}) if kept.any() else {}

    def isolated(self, batch: Batch) -> Tensor:
        """Say which rows of a batch were isolated, bool ``[B]``."""
        return torch.isin(batch["index"], self.data.get_view("suspicious").index.to(batch["index"]))


class ABLUnlearning(ABLTraining):
    r"""Unlearn the isolated rows by gradient ascent, while the others are learned on.

    .. math:: \mathbb E_{(x, y) \in D_c}[\mathrm{CE}(f(x), y)] - \mathbb E_{(x, y) \in D_b}[\mathrm{CE}(f(x), y)]

    A batch has few isolated rows: each counts by the share that it has in the second mean, so that the sum over an
    epoch is right. Arguments as in `FineTune`.
    """

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Compute the two means on one batch."""
        isolated, rows = self.isolated(batch), len(batch["label"])
        each = F.cross_entropy(self.classifier(batch["image"]).float(), batch["label"], reduction="none")
        views = (self.data.get_view(name) for name in ("questioned", "suspicious"))
        whole, part = (len(view) for view in views)
        learned = each[~isolated].sum() / rows * whole / (whole - part)
        unlearned = each[isolated].sum() / rows * whole / part
        return {"loss": learned - unlearned, "unlearned_loss": unlearned}


class ABLAscent(FineTune):
    """Maximize the cross-entropy of the isolated rows, ``data.suspicious``, and see no others, as the release does.

    Arguments as in `FineTune`.
    """

    views: ClassVar[tuple[str, ...]] = ("suspicious",)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Compute the negative cross-entropy."""
        return {"loss": -super().losses(batch)["loss"]}
