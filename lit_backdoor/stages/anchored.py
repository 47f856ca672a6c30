"""Fine-tuning that is held to the suspect's answers on mixtures of root images (ours)."""

from __future__ import annotations

import torch
from torch import Tensor

from lit_backdoor.functional.consolidation import distillation_loss
from lit_backdoor.functional.mixtures import mixtures
from lit_backdoor.models import Frozen
from lit_backdoor.models.base import evaluating
from lit_backdoor.stages.base import Batch
from lit_backdoor.stages.repair import FineTune

__all__ = ["Anchored"]

_TEMPERATURE = 2.0


class Anchored(FineTune):
    r"""Add the distance from the suspect's answers on mixtures of root images to a fine-tune's loss (ours).

    .. math:: L + a\, T^2 \operatorname{KL}(\sigma(z'(\tilde x) / T) \,\|\, \sigma(z(\tilde x) / T)), \quad T = 2

    A penalty on what a backdoor uses also costs clean accuracy, most of all that of the target class. The labels of a
    few root images do not prevent it: the net fits them all the same. Mixtures of two root images (`mixtures`) are new
    in every step, lie between the classes and carry no trigger, so the suspect's answers z' on them show its clean
    behavior only. Name this class before the stage to whose loss it is added.

    Attributes:
        anchor: Weight a, >= 0.
    """

    anchor = 1.0

    def build(self) -> None:
        """Open the suspect twice: one stays as it is."""
        super().build()
        self.before = Frozen(self.open_classifier())

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Add the distance to the stage's loss."""
        return self.anchored(super().losses(batch), batch)

    def anchored(self, found: dict[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        """Add the distance on the batch's mixtures to a loss."""
        mixed = mixtures(batch["image"])
        with torch.no_grad():
            answers = self.before(mixed)
        with evaluating(self.classifier), torch.enable_grad():  # mixtures are not what the norms' statistics are of
            kept = distillation_loss(self.classifier(mixed), answers, _TEMPERATURE)
        return {**found, "loss": found["loss"] + self.anchor * kept, "kept": kept}
