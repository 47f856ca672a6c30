"""Fine-tuning whose penalty gives way while it costs a class its accuracy (ours)."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics.functional.classification import multiclass_recall

from lit_backdoor.errors import check_share
from lit_backdoor.stages.repair import FineTune

__all__ = ["Restrained", "check_tolerance"]

_DOWN, _UP = 0.5, 1.25  # quick to give way, slow to come back


class Restrained(FineTune):
    """Weigh a penalty less while a class loses accuracy on root images (ours).

    A penalty on what a backdoor uses also costs clean accuracy, most of all that of the target class, and more with
    fewer root images; overall accuracy hides it. At the start of each epoch after the first, every class's recall on
    root images, in eval mode and without augmentation, is compared with the suspect's. If a class has lost more than
    ``tolerance``, ``eased`` is halved, else it rises by a quarter, up to 1. A subclass multiplies its penalty by it.

    Attributes:
        tolerance: Loss of a class's recall from which the penalty gives way, in [0, 1]; with 1, as here, it never does.
    """

    tolerance = 1.0
    eased: Tensor
    recall: Tensor

    def build(self) -> None:
        """Open the suspect and make room for its recall."""
        super().build()
        self.register_buffer("eased", torch.tensor(1.0))  # buffers, so that a resumed run goes on with them
        self.register_buffer("recall", torch.zeros(self.classifier.num_classes))

    def begin_epoch(self) -> None:
        """Compare the recall of each class with the suspect's."""
        super().begin_epoch()
        if self.tolerance >= 1 or self.idle or self.mid_epoch:
            return
        answers, labels = self.answers(self.classifier, "root")
        recall = multiclass_recall(answers, labels, num_classes=len(self.recall), average=None)
        if self.current_epoch == 0:
            self.recall.copy_(recall)
        else:
            lost = (self.recall - recall).max() > self.tolerance
            self.eased.copy_(torch.where(lost, self.eased * _DOWN, (self.eased * _UP).clamp(max=1)))


def check_tolerance(value: float) -> float:
    """Check a loss of recall that is tolerated.

    Raises:
        ValueError: If it is not in [0, 1].
    """
    return value if value == 0 else check_share("tolerance", value, closed=True)
