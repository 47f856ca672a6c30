"""Fine-tuning whose penalty gives way while it costs a class its accuracy (ours)."""

from __future__ import annotations

import torch
from torch import Tensor

from lit_backdoor.stages.base import Batch
from lit_backdoor.stages.held_out import is_held_out
from lit_backdoor.stages.repair import FineTune

__all__ = ["Restrained"]

_HELD_OUT = 0.2  # share of the root set
_START, _DOWN, _UP = 1 / 64, 0.5, 1.25  # it rises slowly, since what a first shock breaks does not come back


class Restrained(FineTune):
    """Weigh a penalty less while a class is lost on root images that no step sees (ours).

    A penalty on what a backdoor uses also costs clean accuracy, most of all that of the target class, and more with
    fewer root images; overall accuracy hides it, and images that are trained on do, too. So a fifth of the root set is
    held out. At the start of each epoch after the first, each class's mean probability on its own images there, in eval
    mode and without augmentation, is compared with the suspect's: it tells more than right and wrong where a class has
    three images. If a class has lost more than ``tolerance``, ``eased`` is halved, else it rises by a quarter; it goes
    from 1/64 to at most 1. Name it before the stage whose penalty is weighed by `strength`; that stage then sees only
    the rows that are not held out.

    Attributes:
        tolerance: Loss of a class's mean probability that the penalty may cost, in (0, 1).
    """

    tolerance = 0.1
    eased: Tensor
    chances: Tensor

    def build(self) -> None:
        """Open the suspect and make room for its probabilities."""
        super().build()
        self.register_buffer("eased", torch.tensor(_START))  # buffers, so that a resumed run goes on with them
        self.register_buffer("chances", torch.zeros(self.classifier.num_classes))

    def begin_epoch(self) -> None:
        """Compare each class's probability with the suspect's."""
        super().begin_epoch()
        if self.idle or self.mid_epoch:
            return
        chances = self._held_out_chances()
        if self.current_epoch == 0:
            self.chances.copy_(chances)
        else:
            lost = (self.chances - chances > self.tolerance).any()
            self.eased.copy_(torch.where(lost, self.eased * _DOWN, (self.eased * _UP).clamp(max=1)))

    def _held_out_chances(self) -> Tensor:
        """Give the mean probability of each class on its held-out images, 0 where it has none, ``[C]``."""
        sums, counts = torch.zeros_like(self.chances), torch.zeros_like(self.chances)
        for batch in self.passes("root", self.classifier):
            kept = is_held_out(self, batch, _HELD_OUT) & batch["valid"]
            labels = batch["label"][kept]
            own = self.classifier(batch["image"][kept]).float().softmax(1).gather(1, labels[:, None])[:, 0]
            sums.index_add_(0, labels, own)
            counts.index_add_(0, labels, torch.ones_like(own))
        return sums / counts.clamp(min=1)

    @property
    def strength(self) -> Tensor:
        """What the penalty is weighed by: ``eased``, a scalar in (0, 1]."""
        return self.eased

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Compute the loss of the rows that are not held out; nothing if there are none."""
        rest = self.rest(batch)
        return {**super().losses(rest), "strength": self.strength} if len(rest["label"]) else {}

    def rest(self, batch: Batch) -> Batch:
        """Give the rows of a batch that are not held out."""
        kept = ~is_held_out(self, batch, _HELD_OUT)
        return {**batch, "image": batch["image"][kept], "label": batch["label"][kept], "index": batch["index"][kept]}
