"""Fine-tuning whose penalty gives way while it costs a class its accuracy (ours)."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from lit_backdoor.errors import check_share
from lit_backdoor.stages.base import Batch
from lit_backdoor.stages.held_out import is_held_out
from lit_backdoor.stages.repair import FineTune

__all__ = ["Restrained", "check_tolerance"]

_HELD_OUT = 0.2  # share of the root set
_DOWN, _UP = 0.5, 1.25  # quick to give way, slow to come back


class Restrained(FineTune):
    """Weigh a penalty less while a class loses accuracy on root images that no step sees (ours).

    A penalty on what a backdoor uses also costs clean accuracy, most of all that of the target class, and more with
    fewer root images; overall accuracy hides it, and images that are trained on do, too. So a fifth of the root set is
    held out. At the start of each epoch after the first, the images of each class that are classified right there are
    counted. If a class has lost more than ``tolerance`` of the suspect's, and one image more, ``eased`` is halved, else
    it rises by a quarter, up to 1. A subclass multiplies its penalty by it and trains on `rest`.

    Attributes:
        tolerance: Share of a class's right answers that the penalty may cost, in [0, 1]; with 1, as here, it never
            gives way, and no image is held out.
    """

    tolerance = 1.0
    eased: Tensor
    right: Tensor

    def build(self) -> None:
        """Open the suspect and make room for its right answers."""
        super().build()
        self.register_buffer("eased", torch.tensor(1.0))  # buffers, so that a resumed run goes on with them
        self.register_buffer("right", torch.zeros(self.classifier.num_classes, dtype=torch.long))

    def begin_epoch(self) -> None:
        """Compare the right answers of each class with the suspect's."""
        super().begin_epoch()
        if self.tolerance >= 1 or self.idle or self.mid_epoch:
            return
        answers, labels = self.answers(self.classifier, "root", partial(is_held_out, self, share=_HELD_OUT))
        right = torch.bincount(labels[answers == labels], minlength=len(self.right))
        if self.current_epoch == 0:
            self.right.copy_(right)
        else:
            lost = (self.right - right > self.tolerance * self.right + 1).any()
            self.eased.copy_(torch.where(lost, self.eased * _DOWN, (self.eased * _UP).clamp(max=1)))

    def rest(self, batch: Batch) -> Batch:
        """Give the rows of a batch that are not held out."""
        if self.tolerance >= 1:
            return batch
        kept = ~is_held_out(self, batch, _HELD_OUT)
        return {**batch, "image": batch["image"][kept], "label": batch["label"][kept], "index": batch["index"][kept]}


def check_tolerance(value: float) -> float:
    """Check a loss of right answers that is tolerated.

    Raises:
        ValueError: If it is not in [0, 1].
    """
    return value if value == 0 else check_share("tolerance", value, closed=True)
