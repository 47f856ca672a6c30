"""NAB's two trainings: of a net that gives pseudo labels, and with a stamp on the rows that were isolated."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor
from torch.nn import functional as F

from lit_backdoor.models import Classifier, Frozen, Purified
from lit_backdoor.models.corner_stamp import CornerStamp
from lit_backdoor.stages.base import Batch
from lit_backdoor.stages.from_scratch import FromScratch
from lit_backdoor.stages.inputs import Takes
from lit_backdoor.stages.optim import Schedule, sgd_from_scratch

__all__ = ["NonAdversarialTraining", "PseudoLabeling"]


class PseudoLabeling(FromScratch):
    """Train a net anew on clean root images only, so that it gives labels without the backdoor (NAB).

    Arguments as in `FromScratch`.
    """

    views: ClassVar[tuple[str, ...]] = ("root",)


class NonAdversarialTraining(FromScratch):
    """Train anew on the questioned set, with a stamp and a new label on suspicious rows (NAB).

    A row of ``data.suspicious`` whose label is not the one that the labeler gives it gets the stamp and the labeler's
    label. So the net learns that the stamp overrules the attacker's trigger. The result stamps every image before it
    classifies it; `Purified.judge` then flags images whose class the stamp changes, which the paper rejects.

    Args:
        suspect: Path of a suspect bundle, or a classifier; only its architecture is used.
        labeler: Path of the bundle of a classifier without the backdoor, or such a classifier; frozen.
        size: Side in pixels of the stamp, a square of the classifier's mean color in the top left corner. Release: 2.
        optimizer: Makes the optimizer; default SGD, Nesterov .9, learning rate .1, weight decay 5e-4.
        schedule: What the learning rate does over the run.

    Raises:
        ValueError: If ``size`` is not positive.
    """

    takes: ClassVar[Takes] = {**FromScratch.takes, "labeler": ("suspect",)}

    def __init__(
        self,
        suspect: str | Classifier,
        labeler: str | Classifier,
        size: int = 2,
        optimizer: OptimizerCallable = sgd_from_scratch,
        schedule: Schedule = "one_cycle",
    ) -> None:
        super().__init__(suspect, optimizer, schedule)
        if size < 1:
            raise ValueError(f"Expected size of at least 1, got {size}.")
        self.given(labeler=labeler)
        self.size = size
        self.relabeled = torch.empty(0, dtype=torch.long)

    def build(self) -> None:
        """Make a new net behind the stamp, and open the labeler."""
        super().build()
        self.classifier: Purified = Purified(CornerStamp(self.size, self.classifier.mean), self.classifier)
        self.labeler: Frozen[Classifier] = Frozen(self.open_classifier("labeler"))

    def on_fit_start(self) -> None:
        """Let the labeler look at the suspicious rows."""
        super().on_fit_start()
        rows = int(self.data.get_view("questioned").index.max()) + 1
        self.relabeled = torch.full((rows,), -1, device=self.device)  # a label for each row of the source, or none
        for batch in self.passes("suspicious"):
            label = self.labeler(batch["image"]).argmax(1)
            self.relabeled[batch["index"]] = torch.where(label == batch["label"], -1, label)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Compute the cross-entropy of a batch whose suspicious rows are stamped and relabeled."""
        images, label = batch["image"], self.relabeled[batch["index"]]
        changed = label >= 0
        images = torch.where(changed[:, None, None, None], self.classifier.purifier(images), images)
        logits = self.classifier.classifier(images).float()
        return {"loss": F.cross_entropy(logits, torch.where(changed, label, batch["label"]))}

    def numbers(self) -> dict[str, Any]:
        """Give the number of rows that were stamped."""
        return {"stamped_rows": int((self.relabeled >= 0).sum())}
