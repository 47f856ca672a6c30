"""COMBAT: a clean-label trigger that is trained in turn with a classifier, before a victim is trained on it.

Huynh et al., "COMBAT: Alternated Training for Effective Clean-Label Backdoor Attacks", AAAI 2024.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor
from torch.nn import functional as F

from lit_backdoor.errors import check_share
from lit_backdoor.models import Classifier, Frozen
from lit_backdoor.models.base import evaluating
from lit_backdoor.stages.attack_training import AttackTraining
from lit_backdoor.stages.base import Batch
from lit_backdoor.stages.inputs import Takes
from lit_backdoor.stages.optim import Schedule, adam_for_generators, sgd_from_scratch

__all__ = ["COMBATTraining"]


class COMBATTraining(AttackTraining):
    r"""Train a trigger T against a classifier f, in turn; a clean net f' keeps T from changing what images show.

    .. math:: \min_T\ \operatorname{CE}(f(T(x)), t) + \lambda_2 \lVert T(x) - x \rVert^2
        + \lambda_c \operatorname{CE}(f'(T(x)), y)

    The classifier learns the true labels of all rows; a share of the target class's rows in each batch is triggered.
    It is in eval mode, as in the release, where the trigger learns from it.
    A victim is then trained from new weights on the trigger as it is, by any training.

    Args:
        classifier: The net f to train.
        surrogate: Path of a bundle with the clean net f', or a classifier.
        poison: Share of the target class's rows that are triggered, in (0, 1]. Paper: .5.
        size_weight: Weight :math:`\lambda_2` of the mean squared change, >= 0. Paper: .02 for images in [-1, 1], which
            is .08 here.
        clean_weight: Weight :math:`\lambda_c`, >= 0. Paper: .8.
        optimizer: Makes the classifier's optimizer; default SGD, Nesterov .9, learning rate .1, weight decay 5e-4.
        trigger_optimizer: Makes the trigger's; default Adam 1e-3.
        schedule: What the classifier's learning rate does over the run.

    Raises:
        ValueError: If a share or a weight is out of range; when run, as in `AttackTraining`.
    """

    takes: ClassVar[Takes] = {"surrogate": ("suspect",)}

    def __init__(
        self,
        classifier: Classifier,
        surrogate: str | Classifier,
        poison: float = 0.5,
        size_weight: float = 0.08,
        clean_weight: float = 0.8,
        optimizer: OptimizerCallable = sgd_from_scratch,
        trigger_optimizer: OptimizerCallable = adam_for_generators,
        schedule: Schedule = "one_cycle",
    ) -> None:
        super().__init__(classifier, optimizer, trigger_optimizer, schedule)
        if min(size_weight, clean_weight) < 0:
            raise ValueError(f"Expected weights of 0 or more, got {size_weight} and {clean_weight}.")
        self.given(surrogate=surrogate)
        self.poison = check_share("the share of the target class's rows", poison, closed=True)
        self.size_weight, self.clean_weight = size_weight, clean_weight

    def build(self) -> None:
        """Take the trigger and open the clean net."""
        super().build()
        self.clean: Frozen[Classifier] = Frozen(self.open_classifier("surrogate"))

    def trigger_losses(self, batch: Batch) -> dict[str, Tensor]:
        """Compute the trigger's loss on all rows."""
        images, labels = batch["image"], batch["label"]
        triggered = self.trigger(images, batch["index"])
        with evaluating(self.classifier), torch.enable_grad():  # its statistics are those of the images that it learns
            backdoor = F.cross_entropy(self.classifier(triggered).float(), self.wanted(labels))
        size, seen = F.mse_loss(triggered, images), F.cross_entropy(self.clean(triggered).float(), labels)
        loss = backdoor + self.size_weight * size + self.clean_weight * seen
        return {"trigger_loss": loss, "backdoor_loss": backdoor, "size": size, "clean_loss": seen}

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Compute the classifier's loss; the batch's first rows of the target class are triggered."""
        images, labels = batch["image"].clone(), batch["label"]
        rows = (labels == self.attack.target).nonzero().flatten()
        rows = rows[: round(self.poison * len(rows))]
        if len(rows):
            with torch.no_grad():
                images[rows] = self.trigger.poison(images[rows], batch["index"][rows])
        logits = self.classifier(images).float()
        return {"loss": F.cross_entropy(logits, labels), "acc": (logits.argmax(1) == labels).float().mean()}
