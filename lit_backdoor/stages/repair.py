"""Repair of a suspect: what it takes and gives, and fine-tuning of it on root data."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from operator import itemgetter
from typing import Any, ClassVar, Literal, get_args

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor
from torch.nn import functional as F

from lit_backdoor.errors import one_of
from lit_backdoor.metrics import accuracy
from lit_backdoor.models import Classifier
from lit_backdoor.models.base import batch_norms
from lit_backdoor.stages.base import Batch, Stage
from lit_backdoor.stages.optim import Schedule, adam, scheduled

__all__ = ["FineTune", "Mitigation"]

Metric = Callable[[Tensor, Tensor], Tensor]


class Mitigation(Stage):
    """Take a suspect, give a suspect; `result` is the one that is validated, tested and exported.

    Args:
        suspect: Path of a suspect bundle, or a classifier (a copy of it is changed).

    Attributes:
        selection: What data the choice of a threshold or an end sees, if there is one: ``root``, or ``oracle``, the
            triggered test images.
    """

    kind: ClassVar[str | None] = "suspect"
    selection: ClassVar[Literal["none", "root", "oracle"]] = "none"

    def __init__(self, suspect: str | Classifier) -> None:
        super().__init__()
        self.given(suspect=suspect)

    def build(self) -> None:
        """Open the suspect and enable its gradients."""
        self.classifier = self.open_classifier().requires_grad_(True).train()

    @property
    def idle(self) -> bool:
        """Whether there is nothing to do, such as where a detector flagged no class: the suspect stays as it is."""
        return False

    def on_fit_start(self) -> None:
        """Say if there is nothing to do."""
        super().on_fit_start()
        self.warn_if_idle()

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> int | None:
        """Skip every epoch, by Lightning's -1, if there is nothing to do."""
        skipped = super().on_train_batch_start(batch, batch_idx)
        return -1 if self.idle else skipped

    def warn_if_idle(self) -> None:
        """Warn if there is nothing to do."""
        if self.idle:
            warnings.warn("No class was flagged: the suspect goes on unchanged.", stacklevel=3)

    def result(self) -> Classifier:
        """Give the suspect as repaired so far."""
        return self.classifier

    def root_accuracy(self, classifier: Classifier, counted: Callable[[Batch], Tensor] = itemgetter("valid")) -> float:
        """Measure a classifier's accuracy on the rows of the root set that count, without augmentation."""
        return self.measured(accuracy, classifier, "root", counted)

    def measured(self, metric: Metric, classifier: Classifier, view: str, counted: Callable[[Batch], Tensor]) -> float:
        """Measure a classifier on the rows of a view that count, the same in every process."""
        rows = []
        for batch in self.passes(view, classifier):
            kept = counted(batch) & batch["valid"]
            if kept.any():
                rows.append((classifier(batch["image"][kept]).argmax(1), batch["label"][kept]))
        return float(metric(*(torch.cat(column) for column in zip(*rows, strict=True))))


class FineTune(Mitigation):
    """Fine-tune every weight of a suspect on clean root data; the control of every defense.

    Root images from elsewhere, whose classes are not the suspect's, get the labels that the suspect gives them.

    Args:
        suspect: Path of a suspect bundle, or a classifier (a copy of it is tuned).
        optimizer: Makes the optimizer; default Adam 1e-4.
        schedule: What the learning rate does over the run.
        batch_norm: ``train`` uses and updates batch statistics, ``eval`` keeps the suspect's running ones.

    Raises:
        ValueError: If an option is unknown.
    """

    def __init__(
        self,
        suspect: str | Classifier,
        optimizer: OptimizerCallable = adam,
        schedule: Schedule = "constant",
        batch_norm: Literal["train", "eval"] = "train",
    ) -> None:
        super().__init__(suspect)
        self.optimizer = optimizer
        self.schedule = one_of("schedule", schedule, get_args(Schedule))
        self.batch_norm = one_of("batch_norm", batch_norm, ("train", "eval"))

    def configure_optimizers(self) -> Any:
        """Make the optimizer and its schedule; an idle run has none: torch would warn of no step."""
        optimizer = self.optimizer(self.classifier.parameters())
        return optimizer if self.idle else scheduled(self, optimizer, self.schedule)

    def begin_epoch(self) -> None:
        """Set the mode of batch norm, which Lightning's train mode would undo."""
        if self.batch_norm == "eval":
            for norm in batch_norms(self.classifier):
                norm.eval()

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Compute the cross-entropy of one batch."""
        return {"loss": F.cross_entropy(self.classifier(batch["image"]).float(), batch["label"])}
