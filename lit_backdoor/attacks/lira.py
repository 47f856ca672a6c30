"""LIRA: a trigger that is learned with the classifier, and changes each image by what a net makes of it.

Doan et al., "LIRA: Learnable, Imperceptible and Robust Backdoor Attacks", ICCV 2021.
"""

from __future__ import annotations

import copy

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor
from torch.nn import functional as F

from lit_backdoor.errors import check_share
from lit_backdoor.models import Classifier, Frozen
from lit_backdoor.stages.attack_training import AttackTraining
from lit_backdoor.stages.base import Batch
from lit_backdoor.stages.optim import Schedule, adam, sgd_from_scratch

__all__ = ["LIRATraining"]


class LIRATraining(AttackTraining):
    r"""Train a classifier f and a trigger T in turn, then the classifier on the trigger as it is (LIRA).

    .. math:: \min_f\ a\, \mathrm{CE}(f(x), y) + (1 - a)\, \mathrm{CE}(f(T(x)), \eta(y))
        \quad \text{with} \quad T = \arg\min_T \mathrm{CE}(f(T(x)), \eta(y))

    Every row of a batch is seen clean and triggered, whatever its role; the attack's labels :math:`\eta` come from its
    policy. The classifier sees the trigger as it was when the epoch began, as in the public releases. The shape of T,
    :math:`T(x) = \mathrm{clamp}(x + \epsilon\, g(x))`, is the attack's trigger: `GeneratorTrigger` of a `UNet` with
    ``bound`` :math:`\epsilon`.

    Deviations: the generator is this package's U-Net. In the releases the trigger's loss also leaves its gradient in
    the classifier, which is then trained on both; here each net gets the gradient of its own loss only. Releases that
    bound normalized images by .01 bound pixels in [0, 1] by about .0025.

    Args:
        classifier: The net to train.
        clean: Weight a of the clean loss, in (0, 1). Paper: .5.
        joint: Share of the epochs in which the trigger is trained too, in (0, 1]; after them it is fixed.
        optimizer: Makes the classifier's optimizer; default SGD, Nesterov .9, learning rate .1, weight decay 5e-4.
        trigger_optimizer: Makes the trigger's; default Adam 1e-4, the paper's.
        schedule: What the classifier's learning rate does over the run.

    Raises:
        ValueError: If a share is out of range; when run, as in `AttackTraining`.
    """

    def __init__(
        self,
        classifier: Classifier,
        clean: float = 0.5,
        joint: float = 0.5,
        optimizer: OptimizerCallable = sgd_from_scratch,
        trigger_optimizer: OptimizerCallable = adam,
        schedule: Schedule = "one_cycle",
    ) -> None:
        super().__init__(classifier, optimizer, trigger_optimizer, schedule)
        self.clean = check_share("the weight of the clean loss", clean)
        self.joint = check_share("the share of epochs that train the trigger", joint, closed=True)

    def begin_epoch(self) -> None:
        """Fix the trigger that the classifier sees in this epoch."""
        self.seen = Frozen(copy.deepcopy(self.trigger))

    def trigger_losses(self, batch: Batch) -> dict[str, Tensor]:
        """Compute the trigger's loss: what it gains by moving images to the attack's labels."""
        if self.current_epoch >= self.joint * (self.trainer.max_epochs or 1):
            return {}
        logits = self.classifier(self.trigger(batch["image"], batch["index"])).float()
        return {"trigger_loss": F.cross_entropy(logits, self.wanted(batch["label"]))}

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Compute the classifier's loss on clean and triggered images."""
        images, labels = batch["image"], batch["label"]
        with torch.no_grad():
            triggered = self.seen(images, batch["index"])
        of_clean, of_triggered = self.classifier(torch.cat((images, triggered))).float().chunk(2)
        clean = F.cross_entropy(of_clean, labels)
        backdoor = F.cross_entropy(of_triggered, self.wanted(labels))
        return {
            "loss": self.clean * clean + (1 - self.clean) * backdoor,
            "clean_loss": clean,
            "backdoor_loss": backdoor,
            "acc": (of_clean.argmax(1) == labels).float().mean(),
        }
