"""RNP's first step: the suspect unlearns clean images."""

from __future__ import annotations

from typing import Any, Literal

from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor
from torch.nn import functional as F
from torch.optim import SGD, Optimizer

from lit_backdoor.errors import check_share
from lit_backdoor.models import Classifier
from lit_backdoor.stages.base import Batch
from lit_backdoor.stages.repair import FineTune

__all__ = ["RNPUnlearning"]


def sgd(parameters: Any) -> Optimizer:
    """Make the release's SGD: learning rate .01, momentum .9, weight decay 5e-4."""
    return SGD(parameters, lr=0.01, momentum=0.9, weight_decay=5e-4)


class RNPUnlearning(FineTune):
    """Maximize the cross-entropy of root images until the suspect no longer classifies them (RNP).

    The accuracy on the root set is measured before each epoch; once it is below ``floor``, no more epochs are trained.

    Args:
        suspect: Path of a suspect bundle, or a classifier (a copy of it is tuned).
        floor: Root accuracy at which to stop, in (0, 1). Release: .2.
        optimizer: Makes the optimizer; default the release's SGD.
        batch_norm: ``train`` uses and updates batch statistics, ``eval`` keeps the suspect's running ones.

    Raises:
        ValueError: If the floor is out of range.
    """

    def __init__(
        self,
        suspect: str | Classifier,
        floor: float = 0.2,
        optimizer: OptimizerCallable = sgd,
        batch_norm: Literal["train", "eval"] = "train",
    ) -> None:
        super().__init__(suspect, optimizer, "constant", batch_norm)
        self.floor = check_share("the root accuracy at which to stop", floor)
        self.finished = False

    def begin_epoch(self) -> None:
        """Measure whether there is anything left to unlearn."""
        super().begin_epoch()
        if not self.mid_epoch:
            self.finished = self.root_accuracy(self.classifier) < self.floor

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> int | None:
        """Skip the epoch, by Lightning's -1, if there is nothing left."""
        skipped = super().on_train_batch_start(batch, batch_idx)
        return -1 if self.finished else skipped

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Compute the negative cross-entropy."""
        return {"loss": -F.cross_entropy(self.classifier(batch["image"]).float(), batch["label"])}
