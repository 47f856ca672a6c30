"""SAU's fine-tune."""

from __future__ import annotations

from typing import Literal

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor

from lit_backdoor.errors import check_share
from lit_backdoor.functional.adversarial import projected_ascent
from lit_backdoor.functional.shared_examples import sharing_objective, unsharing_loss
from lit_backdoor.models import Classifier, Frozen
from lit_backdoor.models.base import evaluating
from lit_backdoor.stages import Batch, FineTune
from lit_backdoor.stages.optim import Schedule, adam

__all__ = ["SharedAdversarialUnlearning"]


class SharedAdversarialUnlearning(FineTune):
    r"""Fine-tune a suspect on clean images and against shared adversarial examples (SAU).

    .. math:: \mathrm{CE}(f(x), y) + \gamma\, L_\text{unshare}(f, f_0, \tilde x)

    The changed images are searched for each batch (`sharing_objective`, `projected_ascent`) on the suspect as tuned so
    far and as it was given, f_0, both in eval mode; the second term is `unsharing_loss`.

    Args:
        suspect: Path of a suspect bundle, or a classifier (a copy of it is tuned).
        weight: gamma >= 0, weight of the second term. Release: 1.
        budget: Largest change of a pixel, in (0, 1]. Release: .2.
        steps: Steps of the search, each of the size of the budget, from a change by the whole budget. Release: 5.
        optimizer: Makes the optimizer; default Adam 1e-4, the release's.
        schedule: What the learning rate does over the run.
        batch_norm: ``train`` uses and updates batch statistics, ``eval`` keeps the suspect's running ones (release).

    Raises:
        ValueError: If a number is out of range or an option unknown.
    """

    def __init__(
        self,
        suspect: str | Classifier,
        weight: float = 1.0,
        budget: float = 0.2,
        steps: int = 5,
        optimizer: OptimizerCallable = adam,
        schedule: Schedule = "constant",
        batch_norm: Literal["train", "eval"] = "eval",
    ) -> None:
        super().__init__(suspect, optimizer, schedule, batch_norm)
        if not weight >= 0:
            raise ValueError(f"Expected weight to be 0 or more, got {weight}.")
        if steps < 1:
            raise ValueError(f"Expected steps of at least 1, got {steps}.")
        self.weight = weight
        self.budget = check_share("budget", budget, closed=True)
        self.steps = steps

    def build(self) -> None:
        """Open the suspect twice: one stays as it is."""
        super().build()
        self.reference: Frozen[Classifier] = Frozen(self.open_classifier())

    def shared_examples(self, images: Tensor, labels: Tensor) -> Tensor:
        """Search changes that make both nets wrong in the same way; gives changed images."""

        def objective(changed: Tensor) -> Tensor:
            return sharing_objective(self.classifier(changed), self.reference(changed), labels)

        start = torch.full_like(images, self.budget)
        with evaluating(self.classifier):
            return projected_ascent(images, objective, start, self.budget, self.steps, self.budget)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Compute the loss of clean and of changed images."""
        images, labels = batch["image"], batch["label"]
        entropy = super().losses(batch)["loss"]
        changed = self.shared_examples(images, labels)
        with torch.no_grad():
            clean, expected = self.reference(images), self.reference(changed)
        unshared = unsharing_loss(self.classifier(changed), expected, clean, labels)
        return {"loss": entropy + self.weight * unshared, "entropy": entropy.detach(), "unsharing": unshared.detach()}
