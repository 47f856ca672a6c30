"""FST's fine-tune."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor

from lit_backdoor.functional.precision import no_autocast
from lit_backdoor.models import Classifier
from lit_backdoor.models.latents import check_final_linear
from lit_backdoor.stages import Batch, FineTune
from lit_backdoor.stages.optim import Schedule, sgd

__all__ = ["FeatureShiftTuning"]


class FeatureShiftTuning(FineTune):
    r"""Fine-tune a suspect whose final linear layer is drawn anew and kept away from the old one (FST).

    .. math:: \min_{\theta, W} \mathrm{CE}\bigl(W \phi_\theta(x) + b,\ y\bigr) + \alpha \langle W, W_0 \rangle
        \quad \text{with} \quad \|W\|_F = \|W_0\|_F

    W_0 is the suspect's weight; the bound is met by rescaling W after each step.

    Args:
        suspect: Path of a suspect bundle, or a classifier (a copy of it is tuned).
        alpha: Weight of the inner product, >= 0. Release: .2; its README: .1 for CIFAR-10, 0 for Tiny ImageNet.
        optimizer: Makes the optimizer; default SGD .01, momentum .9, weight decay 5e-4.
        schedule: What the learning rate does over the run.
        **options: Further arguments of `FineTune`.

    Raises:
        ValueError: If ``alpha`` is negative, or the suspect has no final linear layer.
    """

    original: Tensor

    def __init__(
        self,
        suspect: str | Classifier,
        alpha: float = 0.2,
        optimizer: OptimizerCallable = sgd,
        schedule: Schedule = "cosine",
        **options: Any,
    ) -> None:
        super().__init__(suspect, optimizer, schedule, **options)
        if not alpha >= 0:
            raise ValueError(f"Expected alpha to be 0 or more, got {alpha}.")
        self.alpha = alpha

    def build(self) -> None:
        """Open the suspect, keep its final weight, and draw a new layer."""
        super().build()
        check_final_linear(self.classifier)
        last = self.classifier.final_linear
        self.register_buffer("original", last.weight.detach().clone(), persistent=False)
        last.reset_parameters()

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Compute the cross-entropy and the inner product of the new and the old weight."""
        entropy = super().losses(batch)["loss"]
        with no_autocast(entropy):
            product = (self.classifier.final_linear.weight * self.original).sum()
        return {"loss": entropy + self.alpha * product, "entropy": entropy.detach(), "product": product.detach()}

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Make a step, and give the new weight the old one's norm."""
        super().optimizer_step(*args, **kwargs)
        weight = self.classifier.final_linear.weight
        with torch.no_grad():
            weight.mul_(self.original.norm() / weight.norm())
