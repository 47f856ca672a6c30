"""Training of a suspect by an attacker who poisons other rows in every batch, as WaNet's and BppAttack's authors do."""

from __future__ import annotations

from typing import ClassVar

from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor
from torch.nn import functional as F

from lit_backdoor.models import Classifier
from lit_backdoor.stages.base import Batch
from lit_backdoor.stages.optim import Schedule, sgd_from_scratch
from lit_backdoor.stages.own_attack import OwnAttack, check_shares
from lit_backdoor.stages.poisoned_training import PoisonedTraining

__all__ = ["RedrawnTraining"]


class RedrawnTraining(OwnAttack, PoisonedTraining):
    """Train a suspect on batches whose first rows are poisoned and whose next ones are covers, others in every epoch.

    Nguyen & Tran, "WaNet: Imperceptible Warping-Based Backdoor Attack", ICLR 2021: the covers' noise ("noise mode") is
    drawn anew in every batch. The roles that the plan gives to rows are for later stages, such as selections.

    Deviation: rows are stamped after augmentation, not before it.

    Args:
        classifier: The net to train.
        poison: Share of each batch that is poisoned, in (0, 1). WaNet: .1.
        cover: Share of each batch that are covers, in [0, 1). WaNet: .2.
        optimizer: Makes the optimizer; default SGD, Nesterov .9, learning rate .1, weight decay 5e-4.
        schedule: What the learning rate does over the run.
        label_smoothing: Share of the label's mass spread over all classes, in [0, 1).

    Raises:
        ValueError: If a share is out of range, or as in `PoisonedTraining`; when run, if the data have no attack.
    """

    views: ClassVar[tuple[str, ...]] = ("attacker",)

    def __init__(
        self,
        classifier: Classifier,
        poison: float = 0.1,
        cover: float = 0.2,
        optimizer: OptimizerCallable = sgd_from_scratch,
        schedule: Schedule = "one_cycle",
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(classifier, optimizer, schedule, label_smoothing)
        self.poison, self.cover = check_shares(poison, cover)

    def build(self) -> None:
        """Take the trigger, which stays as it is."""
        self.take_trigger()
        self.trigger.requires_grad_(False)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Compute the loss on one batch, poisoned here."""
        images, labels, poisons, _ = self.planted(batch, self.poison, self.cover)
        logits = self.classifier(images).float()
        right = logits.argmax(1) == labels
        return {
            "loss": self.criterion(logits, labels),
            "backdoor_loss": F.cross_entropy(logits[:poisons], labels[:poisons]).detach(),
            "acc": right[poisons:].float().mean(),
        }
