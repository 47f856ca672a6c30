"""Narcissus: a clean-label noise that points into the target class, stronger at test time.

Zeng et al., "Narcissus: A Practical Clean-Label Backdoor Attack with Limited Information", CCS 2023.
"""

from __future__ import annotations

from typing import Any, ClassVar, cast

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor
from torch.nn import functional as F
from torch.optim import Optimizer, RAdam

from lit_backdoor.errors import check_share
from lit_backdoor.functional.universal import batches, optimized_noise
from lit_backdoor.models import Classifier
from lit_backdoor.stages.trigger_training import TriggerCrafting
from lit_backdoor.triggers import Trigger, UniversalNoise

__all__ = ["NarcissusCrafting"]


def radam(parameters: Any) -> Optimizer:
    """Make RAdam for noise, at .005 (.01 for images in [-1, 1], as in the release)."""
    return RAdam(parameters, lr=0.005)


class NarcissusCrafting(TriggerCrafting):
    """Find the noise, within a budget, by which a surrogate is surest of the target class on the class's own rows.

    Deviations: the surrogate knows all classes; the paper's learns other data and the target class. Rows are not
    augmented, and the noise is clipped after each step, where the release clips it as it is added.

    Args:
        surrogate: Path of a bundle with a classifier, or a classifier.
        budget: Largest change of a pixel, in (0, 1]. Paper: 16/255.
        steps: Steps of the optimizer. Release: 1,000 passes over the class, 15,000 steps on CIFAR-10.
        batch_size: Rows in a step. Release: 350.
        optimizer: Makes the noise's; default RAdam .005.

    Raises:
        ValueError: If an argument is out of range; when run, if the trigger is another.
    """

    changes: ClassVar[type[Trigger]] = UniversalNoise

    def __init__(
        self,
        surrogate: str | Classifier,
        budget: float = 16 / 255,
        steps: int = 300,
        batch_size: int = 64,
        optimizer: OptimizerCallable = radam,
    ) -> None:
        super().__init__(surrogate)
        if min(steps, batch_size) < 1:
            raise ValueError(f"Expected steps and batch_size of at least 1, got {steps} and {batch_size}.")
        self.budget = check_share("the budget of the noise", budget, closed=True)
        self.steps, self.batch_size, self.optimizer = steps, batch_size, optimizer

    def craft(self) -> None:
        """Find the noise."""
        images, labels, _ = self.rows(lambda batch: batch["label"] == self.attack.target)

        def loss(changed: Tensor, wanted: Tensor) -> Tensor:
            return F.cross_entropy(self.net(changed).float(), wanted)

        given = batches(images, labels, self.batch_size, self.steps)
        noise = optimized_noise(given, loss, torch.zeros_like(images[0]), self.budget, self.optimizer)
        cast(UniversalNoise, self.trigger).hold(noise=noise)
