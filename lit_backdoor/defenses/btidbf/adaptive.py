"""Adaptive BadNets: the attack aimed at the decoupling of benign features (Eq. 7-10, App. I)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor
from torch.optim import SGD, Adam, Optimizer

from lit_backdoor.data.stamping import on_device
from lit_backdoor.defenses.btidbf.decoupled import Decoupled
from lit_backdoor.defenses.btidbf.settings import Decoupling
from lit_backdoor.functional.decoupling import adaptive_loss
from lit_backdoor.models import Classifier
from lit_backdoor.stages.base import Batch
from lit_backdoor.stages.phased import Span, make_plan
from lit_backdoor.triggers import Role

__all__ = ["BTIDBFAdaptiveTraining"]


def gentle_sgd(parameters: Any) -> Optimizer:
    """Make SGD .01 with momentum .9."""
    return SGD(parameters, lr=0.01, momentum=0.9)


class BTIDBFAdaptiveTraining(Decoupled):
    """Attack BTI-DBF: fine-tune a backdoored suspect so that its backdoor features classify benign images too.

    The attacker, who holds the questioned set's clean rows and the trigger, decouples benign features as the defender
    would, then keeps them useful, and teaches the remaining ones both tasks. The result is a suspect.

    Args:
        suspect: Path of a suspect bundle that carries the attack, or a classifier (a copy of it is tuned).
        decoupling: Settings of the mask (Eq. 1).
        epochs: Epochs of fine-tuning after those of the mask.
        optimizer: Makes the optimizer of the suspect; the paper gives none. Default SGD .01, momentum .9.

    Raises:
        ValueError: When run, if there is no attack, or ``max_epochs`` contradicts the phases.
    """

    views: ClassVar[tuple[str, ...]] = ("train",)

    def __init__(
        self,
        suspect: str | Classifier,
        decoupling: Decoupling | None = None,
        epochs: int = 2,
        optimizer: OptimizerCallable = gentle_sgd,
    ) -> None:
        super().__init__(decoupling or Decoupling(epochs=1))
        if epochs < 1:
            raise ValueError(f"Expected at least one epoch of fine-tuning, got epochs={epochs}.")
        self.given(suspect=suspect)
        self.optimizer = optimizer
        self.plan = make_plan([("mask", 0, self.decoupling.epochs), ("adapt", 0, epochs)])

    @property
    def subject(self) -> Classifier:
        """The suspect as tuned so far."""
        return self.classifier

    def build(self) -> None:
        """Open the suspect and make the mask."""
        self.classifier = self.open_classifier().requires_grad_(True)
        self.build_mask()

    def on_fit_start(self) -> None:
        """Check that there is an attack."""
        super().on_fit_start()
        if self.data.attack is None:
            raise ValueError("Expected data.attack to be set: it gives the trigger and the labels to keep.")
        if not self.data.attack.trigger.stamps:
            raise ValueError(
                "Expected an attack whose trigger is stamped, as each image is needed with and without it, got "
                f"{type(self.data.attack.trigger).__name__}."
            )

    def optimizers_by_phase(self) -> Mapping[str, Optimizer]:
        """Make Adam for the mask, and the suspect's optimizer."""
        mask = Adam([self.raw_mask], lr=self.decoupling.lr)
        return {"mask": mask, "adapt": self.optimizer(self.classifier.parameters())}

    def begin_phase(self, span: Span) -> None:
        """Begin the mask."""
        if span.phase == "mask":
            self.begin_mask(span)

    def set_modes(self, phase: str) -> None:
        """Train the suspect in its own phase."""
        self.classifier.train(phase == "adapt")
        self.set_probe_mode(phase)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Compute the phase's loss on the batch's clean rows, in Eq. 7 also with the trigger."""
        kept = batch["role"] == Role.CLEAN
        part = {name: batch[name][kept] for name in ("image", "label", "index")}
        if self.span.phase == "mask":
            return self.mask_losses(part)
        attack = self.data.attack
        images, labels = part["image"], part["label"]
        triggered = on_device(attack.trigger, images.device).poison(images, part["index"])
        clean, stamped = self.features(self.classifier, torch.cat((images, triggered))).chunk(2)
        wanted = attack.relabel(labels, self.classifier.num_classes)
        loss = adaptive_loss(
            lambda features: self.head(self.classifier, features), clean, stamped, self.mask, labels, wanted
        )
        return {"loss": loss}

    def result(self) -> Classifier:
        """Give the suspect as tuned so far."""
        return self.classifier
