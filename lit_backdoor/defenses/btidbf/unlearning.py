"""BTI-DBF (U): unlearn the inverted trigger, and invert again (Eq. 3, Sec. 3.3.1, App. B.1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn
from torch.optim import Optimizer

from lit_backdoor.defenses.btidbf.inverting import Generator, Inverting
from lit_backdoor.defenses.btidbf.settings import Decoupling, InversionSettings
from lit_backdoor.errors import one_of
from lit_backdoor.functional.decoupling import unlearning_loss
from lit_backdoor.models import Classifier
from lit_backdoor.models.base import batch_norms
from lit_backdoor.stages.base import Batch
from lit_backdoor.stages.optim import adam

__all__ = ["BTIDBFUnlearning"]


class BTIDBFUnlearning(Inverting):
    """Fine-tune a suspect on images with the inverted trigger under their true labels, in rounds with its inversion.

    Each round draws a new mask and trains the generator on, against the suspect as it is by then (R1 rounds; 1 is the
    paper's ablation without iterative enhancement, Table 5).

    Args:
        suspect: Path of a suspect bundle, or a classifier (a copy of it is tuned).
        decoupling: Settings of the mask (Eq. 1).
        inversion: Settings of the generator (Eq. 2).
        generator: The net to train, or several to choose from by the votes; default a `WarpField`, which finds warps,
            and a `PatternedUNet`.
        rounds: Rounds R1. Paper and release: 5.
        unlearn_epochs: Epochs of unlearning in each round. Paper: 20; release: 30.
        optimizer: Makes the optimizer of the suspect; default Adam 1e-4, the release's. Paper: 1e-3.
        batch_norm: ``train`` uses and updates batch statistics, ``eval`` keeps the suspect's running ones.

    Raises:
        ValueError: If an option is unknown; when run, if ``max_epochs`` contradicts rounds and phases.
    """

    def __init__(
        self,
        suspect: str | Classifier,
        decoupling: Decoupling | None = None,
        inversion: InversionSettings | None = None,
        generator: Generator | Sequence[Generator] | None = None,
        rounds: int = 3,
        unlearn_epochs: int = 3,
        optimizer: OptimizerCallable = adam,
        batch_norm: Literal["train", "eval"] = "train",
    ) -> None:
        super().__init__(
            decoupling,
            inversion or InversionSettings(first_epochs=6, toward_target=True),
            generator,
            rounds,
            ("unlearn", unlearn_epochs),
        )
        self.given(suspect=suspect)
        self.optimizer = optimizer
        self.batch_norm = one_of("batch_norm", batch_norm, ("train", "eval"))

    @property
    def subject(self) -> Classifier:
        """The suspect as tuned so far."""
        return self.classifier

    def build(self) -> None:
        """Open the suspect, enable its gradients and make the nets."""
        self.classifier = self.open_classifier().requires_grad_(True)
        self.build_inversion()

    def optimizers_by_phase(self) -> Mapping[str, Optimizer]:
        """Add the suspect's optimizer."""
        return {**super().optimizers_by_phase(), "unlearn": self.optimizer(self.classifier.parameters())}

    def set_modes(self, phase: str) -> None:
        """Train the suspect in its own phase, with norms as chosen."""
        super().set_modes(phase)
        if phase == "unlearn":
            self.classifier.train()
            for norm in batch_norms(self.classifier):
                norm.train(self.batch_norm == "train")

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Compute the phase's loss."""
        return {"loss": self.unlearning(batch)} if self.span.phase == "unlearn" else super().losses(batch)

    def unlearned(self) -> nn.Module:
        """Give the generator whose trigger a step unlearns."""
        return self.generator

    def unlearning(self, batch: Batch) -> Tensor:
        """Compute Eq. 3; clean and generated images go through the net together, gradients flow through both."""
        images, labels = batch["image"], batch["label"]
        with torch.no_grad():
            generated = self.unlearned()(images)
        features = self.features(self.classifier, torch.cat((images, generated)))
        clean, changed = features.chunk(2)
        clean_logits, logits = self.head(self.classifier, features).chunk(2)
        return unlearning_loss(clean_logits, logits, clean, changed, labels, self.inversion.norm)

    def result(self) -> Classifier:
        """Give the suspect as tuned so far."""
        return self.classifier
