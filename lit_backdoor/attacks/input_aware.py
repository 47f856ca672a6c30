"""Input-aware attack (IAD, IAB): first the masks are trained, then patterns and classifier by one loss.

Nguyen & Tran, "Input-Aware Dynamic Backdoor Attack", NeurIPS 2020.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar, cast

from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn

from lit_backdoor.functional.input_aware import diversity_loss, excess
from lit_backdoor.models import Classifier
from lit_backdoor.stages.attack_training import JointTraining
from lit_backdoor.stages.base import Batch
from lit_backdoor.stages.optim import Schedule, adam_for_generators, sgd_from_scratch
from lit_backdoor.stages.own_attack import Planted
from lit_backdoor.stages.trigger_training import TriggerTraining
from lit_backdoor.triggers import InputAware, Trigger

__all__ = ["InputAwareMask", "InputAwareTraining"]


class InputAwareMask(TriggerTraining):
    r"""Train the masks of an `InputAware` trigger: small, and different for different images.

    .. math:: \ell = \lambda_n \operatorname{mean} \max(m(x) - \rho, 0) + \lambda_d \ell_\text{div}(m)

    Pairs of images for the diversity loss are rows of one batch.

    Args:
        density: Density of a mask that costs nothing, in [0, 1). Release: .032.
        small: Weight :math:`\lambda_n`, >= 0. Release: 100.
        diverse: Weight :math:`\lambda_d`, >= 0. Release: 1.
        optimizer: Makes the optimizer; default Adam 1e-3.
        schedule: What the learning rate does over the run.

    Raises:
        ValueError: If a weight is negative or the density out of range; when run, if the trigger is another.
    """

    changes: ClassVar[type[Trigger]] = InputAware

    def __init__(
        self,
        density: float = 0.032,
        small: float = 100.0,
        diverse: float = 1.0,
        optimizer: OptimizerCallable = adam_for_generators,
        schedule: Schedule = "constant",
    ) -> None:
        super().__init__(optimizer, schedule)
        if not 0 <= density < 1 or min(small, diverse) < 0:
            raise ValueError(
                f"Expected a density in [0, 1) and weights of 0 or more, got density={density}, small={small} and "
                f"diverse={diverse}."
            )
        self.density, self.small, self.diverse = density, small, diverse

    def nets(self) -> nn.Module:
        """Give the masker."""
        return cast(InputAware, self.trigger).masker

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Compute the loss of the masks."""
        images = batch["image"]
        masks = cast(InputAware, self.trigger).masks(images)
        size, diversity = (
            excess(masks, self.density),
            diversity_loss(images, images.roll(1, 0), masks, masks.roll(1, 0)),
        )
        return {"loss": self.small * size + self.diverse * diversity, "size": size, "diversity": diversity}


class InputAwareTraining(JointTraining):
    r"""Train classifier and patterns of an `InputAware` trigger; its masks stay as they are.

    The loss is the cross-entropy of a batch with poisoned rows, covers with other images' triggers and clean rows, plus
    :math:`\lambda` times the diversity loss of the patterns, over pairs of poisoned rows and the covers' partners.

    Args:
        classifier: The net to train.
        poison: Share of each batch that is poisoned, in (0, 1). Paper: .1.
        cover: Share of each batch that are covers, in (0, 1). Paper: .1.
        diverse: Weight :math:`\lambda` of the diversity loss, >= 0. Paper: 1.
        optimizer: Makes the classifier's optimizer; default SGD, Nesterov .9, learning rate .1, weight decay 5e-4.
        trigger_optimizer: Makes that of the patterns; default Adam 1e-3.
        schedule: What the classifier's learning rate does over the run.

    Raises:
        ValueError: If a share or the weight is out of range; when run, if the trigger is another, or as in
            `AttackTraining`.
    """

    changes: ClassVar[type[Trigger]] = InputAware

    def __init__(
        self,
        classifier: Classifier,
        poison: float = 0.1,
        cover: float = 0.1,
        diverse: float = 1.0,
        optimizer: OptimizerCallable = sgd_from_scratch,
        trigger_optimizer: OptimizerCallable = adam_for_generators,
        schedule: Schedule = "one_cycle",
    ) -> None:
        super().__init__(classifier, poison, cover, optimizer, trigger_optimizer, schedule)
        if not (cover > 0 and diverse >= 0):
            raise ValueError(
                f"Expected covers and a weight of 0 or more, got cover={cover} and diverse={diverse}. Without covers "
                "no trigger would be an image's own."
            )
        self.diverse = diverse

    def build(self) -> None:
        """Take the trigger; its masks are fixed."""
        super().build()
        trigger = cast(InputAware, self.trigger)
        trigger.masker.requires_grad_(False)
        trigger.generator.requires_grad_(True)

    def trigger_weights(self) -> Iterable[nn.Parameter]:
        """Give the generator's."""
        return cast(InputAware, self.trigger).generator.parameters()

    def added(self, batch: Batch, planted: Planted) -> dict[str, Tensor]:
        """Compute the diversity loss."""
        images, trigger = batch["image"], cast(InputAware, self.trigger)
        count = min(planted.poisons, planted.covers)
        own, others = images[:count], images.roll(-(planted.poisons + planted.covers), 0)[planted.poisons :][:count]
        patterns, theirs = trigger.patterns(own), trigger.patterns(others)
        return {"diversity": self.diverse * diversity_loss(own, others, patterns, theirs)}
