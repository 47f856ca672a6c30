"""MCL's second step: contrastive fine-tuning with an inverted trigger."""

from __future__ import annotations

from typing import Literal

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor
from torch.nn import functional as F

from lit_backdoor.functional.contrast import model_contrast
from lit_backdoor.models import Classifier, Frozen
from lit_backdoor.models.latents import check_final_linear, latents_and_logits
from lit_backdoor.stages.base import Batch
from lit_backdoor.stages.optim import Schedule, sgd
from lit_backdoor.stages.unlearning import Unlearning
from lit_backdoor.triggers import Trigger

__all__ = ["ModelContrast"]


class ModelContrast(Unlearning):
    r"""Fine-tune a suspect so that it sees in triggered images what the suspect as given saw in clean ones (MCL).

    .. math:: \lambda\, \mathrm{CE}(f(x), y)
        + L_\text{con}\bigl(\phi(\tilde x),\ \phi_0(x),\ \phi_0(\tilde x)\bigr)

    with `model_contrast`; phi gives the input of the final linear layer, phi_0 is that of the suspect as it was given.

    Args:
        suspect: Path of a suspect bundle, or a classifier (a copy of it is tuned).
        generator: Path of a bundle of target classes or of an inverted trigger, or a trigger.
        weight: lambda >= 0. The release has no such term, lambda 0.
        temperature: tau > 0. Release: .5.
        optimizer: Makes the optimizer; default SGD .01, momentum .9, weight decay 5e-4.
        schedule: What the learning rate does over the run.
        batch_norm: ``train`` uses and updates batch statistics (release), ``eval`` keeps the suspect's running ones.

    Raises:
        ValueError: If a number is out of range or an option unknown; when run, if the suspect has no final linear
            layer.
    """

    def __init__(
        self,
        suspect: str | Classifier,
        generator: str | Trigger,
        weight: float = 1.0,
        temperature: float = 0.5,
        optimizer: OptimizerCallable = sgd,
        schedule: Schedule = "cosine",
        batch_norm: Literal["train", "eval"] = "train",
    ) -> None:
        super().__init__(suspect, generator, optimizer, schedule, batch_norm)
        if not weight >= 0 or not temperature > 0:
            raise ValueError(f"Expected weight of 0 or more and temperature above 0, got {weight} and {temperature}.")
        self.weight, self.temperature = weight, temperature

    def build(self) -> None:
        """Open the suspect twice: one stays as it is."""
        super().build()
        check_final_linear(self.classifier)
        self.reference: Frozen[Classifier] = Frozen(self.open_classifier())

    def mixed(self, batch: Batch) -> Batch:
        """Add a triggered copy of each image."""
        triggered = self.stamped(batch["image"], batch["index"])
        return {**batch, "image": torch.cat((batch["image"], triggered))}

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Compute the cross-entropy of the clean images and the contrast of the triggered ones."""
        images, count = self.mixed(batch)["image"], len(batch["image"])
        latents, logits = latents_and_logits(self.classifier, images)
        with torch.no_grad():
            given, _ = latents_and_logits(self.reference.module, images)
        entropy = F.cross_entropy(logits[:count].float(), batch["label"])
        contrast = model_contrast(latents[count:], given[:count], given[count:], self.temperature)
        loss = self.weight * entropy + contrast
        return {"loss": loss, "entropy": entropy.detach(), "contrast": contrast.detach()}
