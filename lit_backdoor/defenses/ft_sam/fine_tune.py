"""FT-SAM's fine-tune."""

from __future__ import annotations

from typing import Literal

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor
from torch.func import functional_call
from torch.nn import functional as F

from lit_backdoor.functional.sharpness import sharpest_change
from lit_backdoor.models import Classifier
from lit_backdoor.stages import Batch, FineTune
from lit_backdoor.stages.optim import Schedule, sgd

__all__ = ["SAMFineTune"]


class SAMFineTune(FineTune):
    r"""Fine-tune a suspect by the loss at the worst weights in its neighborhood (FT-SAM).

    .. math:: \min_w \max_{\|T_w^{-1} \epsilon\|_2 \le \rho} \mathrm{CE}\bigl(f_{w + \epsilon}(x),\ y\bigr)

    The inner maximum is `sharpest_change`; the gradient there makes the step from w. The pass at the changed weights
    updates no running statistics. With several processes each changes the weights by its own batch.

    Args:
        suspect: Path of a suspect bundle, or a classifier (a copy of it is tuned).
        radius: rho > 0. Paper: 2 on CIFAR-10, 8 on GTSRB and Tiny ImageNet.
        adaptive: Whether each weight's change is measured relative to its size. Paper: yes.
        smoothing: Label smoothing in [0, 1). Release: .1 on CIFAR-10, 0 on Tiny ImageNet.
        optimizer: Makes the optimizer; default SGD .01, momentum .9, weight decay 5e-4.
        schedule: What the learning rate does over the run.
        batch_norm: ``train`` uses and updates batch statistics, ``eval`` keeps the suspect's running ones.

    Raises:
        ValueError: If a number is out of range or an option unknown.
    """

    def __init__(
        self,
        suspect: str | Classifier,
        radius: float = 2.0,
        adaptive: bool = True,
        smoothing: float = 0.1,
        optimizer: OptimizerCallable = sgd,
        schedule: Schedule = "cosine",
        batch_norm: Literal["train", "eval"] = "train",
    ) -> None:
        super().__init__(suspect, optimizer, schedule, batch_norm)
        if not radius > 0:
            raise ValueError(f"Expected radius to be above 0, got {radius}. Plain fine-tuning is the stage FineTune.")
        if not 0 <= smoothing < 1:
            raise ValueError(f"Expected smoothing in [0, 1), got {smoothing}.")
        self.radius = radius
        self.adaptive = adaptive
        self.smoothing = smoothing

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Compute the loss at the changed weights, whose gradient is that of the weights themselves."""
        images, labels = batch["image"], batch["label"]
        names, weights = zip(*self.classifier.named_parameters(), strict=True)
        plain = self._entropy(self.classifier(images), labels)
        changes = sharpest_change(weights, torch.autograd.grad(plain, weights), self.radius, self.adaptive)
        changed = {name: weight + change for name, weight, change in zip(names, weights, changes, strict=True)}
        spare = {name: buffer.clone() for name, buffer in self.classifier.named_buffers()}  # takes the statistics
        loss = self._entropy(functional_call(self.classifier, {**changed, **spare}, (images,)), labels)
        return {"loss": loss, "plain_loss": plain.detach()}

    def _entropy(self, logits: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(logits.float(), labels, label_smoothing=self.smoothing)
