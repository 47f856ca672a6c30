"""Grond: a clean-label noise, and a training that keeps the backdoor from standing out in a few channels.

Xu et al., "Towards Backdoor Stealthiness in Model Parameter Space", CCS 2025.
"""

from __future__ import annotations

from typing import Any, ClassVar, cast

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor
from torch.nn import functional as F

from lit_backdoor.errors import check_share
from lit_backdoor.functional.lipschitz import channel_lipschitz, standard_scores
from lit_backdoor.functional.universal import batches, signed_noise
from lit_backdoor.models import Classifier
from lit_backdoor.models.channels import norm_scale, producers
from lit_backdoor.stages.optim import Schedule, sgd_from_scratch
from lit_backdoor.stages.poisoned_training import PoisonedTraining
from lit_backdoor.stages.trigger_training import TriggerCrafting
from lit_backdoor.triggers import Trigger, UniversalNoise

__all__ = ["GrondCrafting", "GrondTraining"]


class GrondCrafting(TriggerCrafting):
    """Find the noise, within a budget, that moves all questioned rows to the target class (targeted universal PGD).

    Args:
        surrogate: Path of a bundle with a classifier, or a classifier.
        budget: Largest change of a pixel, in (0, 1]. Paper: 8/255.
        steps: Steps, each of a fifth of the budget. Release: 500.
        batch_size: Rows in a step.

    Raises:
        ValueError: If an argument is out of range; when run, if the trigger is another.
    """

    changes: ClassVar[type[Trigger]] = UniversalNoise

    def __init__(
        self, surrogate: str | Classifier, budget: float = 8 / 255, steps: int = 200, batch_size: int = 64
    ) -> None:
        super().__init__(surrogate)
        if min(steps, batch_size) < 1:
            raise ValueError(f"Expected steps and batch_size of at least 1, got {steps} and {batch_size}.")
        self.budget = check_share("the budget of the noise", budget, closed=True)
        self.steps, self.batch_size = steps, batch_size

    def craft(self) -> None:
        """Find the noise."""
        images, labels, _ = self.rows()

        def loss(changed: Tensor, labels: Tensor) -> Tensor:
            return F.cross_entropy(self.net(changed).float(), self.wanted(labels))

        given = batches(images, labels, self.batch_size, self.steps)
        noise = signed_noise(given, loss, torch.zeros_like(images[0]), self.budget)
        cast(UniversalNoise, self.trigger).hold(noise=noise)


class GrondTraining(PoisonedTraining):
    """Train a suspect, and at the end of every epoch give channels that stand out the layer's mean weight and bias.

    The paper's adversarial backdoor injection: channels are those that CLP would prune, by the Lipschitz bound of a
    convolution and its batch norm.

    Args:
        classifier: The net to train.
        u: Standard deviations above its layer's mean from which a channel stands out, > 0. Paper: 3.
        optimizer: Makes the optimizer; default SGD, Nesterov .9, learning rate .1, weight decay 5e-4.
        schedule: What the learning rate does over the run.
        label_smoothing: Share of the label's mass spread over all classes, in [0, 1).

    Raises:
        ValueError: If u is not positive, or as in `PoisonedTraining`; when run, if no batch norm follows a convolution.
    """

    def __init__(
        self,
        classifier: Classifier,
        u: float = 3.0,
        optimizer: OptimizerCallable = sgd_from_scratch,
        schedule: Schedule = "one_cycle",
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(classifier, optimizer, schedule, label_smoothing)
        if not u > 0:
            raise ValueError(f"Expected u above 0, got {u}.")
        self.u = u

    def build(self) -> None:
        """Pair the net's norms with convolutions."""
        self.pairs = producers(self.classifier)
        if not self.pairs:
            raise ValueError(
                f"Expected batch norms that follow a convolution in {type(self.classifier.net).__name__}, found none. "
                "Train another net, or by lit_backdoor.stages.PoisonedTraining."
            )

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Make a step; the last one of an epoch is followed by the injection, before any checkpoint."""
        super().optimizer_step(*args, **kwargs)
        if self.trainer.is_last_batch:
            self.inject()

    @torch.no_grad()
    def inject(self) -> None:
        """Give channels that stand out the mean weight and bias of their norm."""
        for conv, norm in self.pairs:
            if not conv.weight.isfinite().all():  # the check of losses stops the run
                continue
            out = standard_scores(channel_lipschitz(conv.weight, norm_scale(norm))) > self.u
            for values in (norm.weight, norm.bias):
                values.copy_(torch.where(out, values.mean(), values))
