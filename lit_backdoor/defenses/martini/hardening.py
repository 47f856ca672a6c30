"""MARTINI: harden a suspect on images with reconstructed triggers under their true labels (Tao et al., Sec. 4)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor
from torch.nn import functional as F
from torch.optim import SGD, Optimizer

from lit_backdoor.defenses.martini.reconstructing import Reconstructing
from lit_backdoor.defenses.martini.reconstruction import ReconstructionSettings
from lit_backdoor.defenses.martini.schedules import Aim, InTurn, Schedule
from lit_backdoor.errors import check_share
from lit_backdoor.models import AutoEncoder, Classifier
from lit_backdoor.stages.base import Batch
from lit_backdoor.stages.phased import Span, make_plan

__all__ = ["MartiniHardening"]


def sgd_for_hardening(parameters: Any) -> Optimizer:
    """Make SGD for hardening: Nesterov .9, learning rate 1e-2."""
    return SGD(parameters, lr=1e-2, momentum=0.9, nesterov=True)


class MartiniHardening(Reconstructing):
    """Reconstruct a trigger for a class against the suspect as it is, harden the suspect against it, and repeat.

    Each round has two phases: `Reconstructing`, and ``harden``, in which the suspect learns from root images and, under
    their true labels, from some of them with the trigger.

    The paper does not give the optimizer, the rounds or how classes are chosen: they are ours. The learning rate
    falls by half a cosine over the rounds.

    Args:
        suspect: Path of a suspect bundle, or a classifier (a copy of it is hardened).
        decoder: Path of a decoder bundle, or an autoencoder for images of the suspect's size.
        reconstruction: Settings of the first phase.
        schedule: Chooses the class of every round; default `InTurn`.
        rounds: Number of rounds.
        harden_epochs: Epochs of the second phase in each round.
        share: Images with a trigger that join a batch, as a share of it, in (0, 1].
        optimizer: Makes the optimizer of the suspect; default SGD 1e-2 with Nesterov momentum .9.

    Raises:
        ValueError: If a number is out of range; when run, if the decoder is for images of another size.
    """

    def __init__(
        self,
        suspect: str | Classifier,
        decoder: str | AutoEncoder,
        reconstruction: ReconstructionSettings | None = None,
        schedule: Schedule | None = None,
        rounds: int = 40,
        harden_epochs: int = 1,
        share: float = 0.25,
        optimizer: OptimizerCallable = sgd_for_hardening,
    ) -> None:
        super().__init__(suspect, decoder, reconstruction)
        self.schedule = schedule or InTurn()
        self.rounds, self.harden_epochs = rounds, harden_epochs
        for name in ("rounds", "harden_epochs"):
            if getattr(self, name) < 1:
                raise ValueError(f"Expected {name} to be at least 1, got {getattr(self, name)}.")
        self.part = check_share("the share of images with a trigger", share, closed=True)
        self.optimizer = optimizer
        self.plan = make_plan((phase, number, epochs) for number in range(rounds) for phase, epochs in self.phases())

    def phases(self) -> tuple[tuple[str, int], ...]:
        """Give the phases of a round and their epochs."""
        return (("reconstruct", self.reconstruction.epochs), ("harden", self.harden_epochs))

    def choose_aim(self, number: int) -> Aim:
        """Choose by the schedule."""
        return self.schedule.aim(number, self.ease, self.seed)

    def optimizers_by_phase(self) -> Mapping[str, Optimizer]:
        """Add the suspect's optimizer, and note its learning rates."""
        optimizer = self.optimizer(self.classifier.parameters())
        self._full_rates = [group["lr"] for group in optimizer.param_groups]
        return {**super().optimizers_by_phase(), "harden": optimizer}

    def begin_phase(self, span: Span) -> None:
        """Before hardening, take the round's trigger and set the learning rate."""
        super().begin_phase(span)
        if span.phase == "harden":
            self.end_round()
            falling = (1 + math.cos(math.pi * span.round / self.rounds)) / 2
            for group, full in zip(self.optimizer_of("harden").param_groups, self._full_rates, strict=True):
                group["lr"] = full * falling

    def set_modes(self, phase: str) -> None:
        """Train the suspect in its own phase."""
        self.classifier.train(phase == "harden")

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Compute the phase's loss."""
        return {"loss": self.harden(batch)} if self.span.phase == "harden" else super().losses(batch)

    def harden(self, batch: Batch) -> Tensor:
        """Compute the cross-entropy of the batch and of some of its images with the trigger, truly labeled."""
        images, labels = batch["image"], batch["label"]
        rows = self.aim.rows(labels).nonzero().flatten()[: max(1, round(self.part * len(images)))]
        with torch.no_grad():
            stamped = self.trigger(images[rows])
        logits = self.classifier(torch.cat((images, stamped))).float()
        return F.cross_entropy(logits, torch.cat((labels, labels[rows])))

    def result(self) -> Classifier:
        """Give the suspect as hardened so far."""
        return self.classifier

    def numbers(self) -> dict[str, Any]:
        """Say how easily each class was reached."""
        return {"ease": self.ease.tolist()}
