"""MARTINI: harden a suspect on images with reconstructed triggers under their true labels (Tao et al., Sec. 4)."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from typing import Any, ClassVar, cast

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor
from torch.nn import functional as F
from torch.optim import Optimizer

from lit_backdoor.defenses.martini.reconstruction import ReconstructionSettings, TriggerBank, reconstruction_terms
from lit_backdoor.defenses.martini.schedules import Aim, InTurn, Schedule
from lit_backdoor.errors import check_share
from lit_backdoor.functional.cost_schedule import CostState, move_cost, start_cost
from lit_backdoor.functional.martini import channel_moments
from lit_backdoor.models import AutoEncoder, Classifier, RegionalTransformation, Renormalization
from lit_backdoor.stages.base import Batch
from lit_backdoor.stages.inputs import Takes
from lit_backdoor.stages.phased import Phased, Span, make_plan
from lit_backdoor.triggers import RegionalTrigger

__all__ = ["MartiniHardening"]


def sgd_for_hardening(parameters: Any) -> Optimizer:
    """Make SGD for hardening: Nesterov .9, learning rate 1e-2."""
    return torch.optim.SGD(parameters, lr=1e-2, momentum=0.9, nesterov=True)


class MartiniHardening(Phased):
    """Reconstruct a trigger for a class against the suspect as it is, harden the suspect against it, and repeat.

    Each round has two phases. In ``reconstruct`` the trigger's two layers are trained by Eq. 8 while the suspect is
    frozen in eval mode; kept is the trigger that looks most like the clean images among those with an attack success
    rate of at least the rule's threshold on a batch. In ``harden`` the suspect learns from root images and, under their
    true labels, some of them with that trigger.

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

    takes: ClassVar[Takes] = {**Phased.takes, "decoder": ("decoder",)}

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
        super().__init__()
        self.given(suspect=suspect, decoder=decoder)
        self.reconstruction = reconstruction or ReconstructionSettings()
        self.schedule = schedule or InTurn()
        self.rounds, self.harden_epochs = rounds, harden_epochs
        for name in ("rounds", "harden_epochs"):
            if getattr(self, name) < 1:
                raise ValueError(f"Expected {name} to be at least 1, got {getattr(self, name)}.")
        self.part = check_share("the share of images with a trigger", share, closed=True)
        self.optimizer = optimizer
        self.plan = make_plan((phase, number, epochs) for number in range(rounds) for phase, epochs in self.phases())

    # What the controls change.

    def phases(self) -> tuple[tuple[str, int], ...]:
        """Give the phases of a round and their epochs."""
        return (("reconstruct", self.reconstruction.epochs), ("harden", self.harden_epochs))

    def layers(self, autoencoder: AutoEncoder) -> tuple[Renormalization | None, RegionalTransformation | None]:
        """Make the layers of the trigger, Γ and Ψ."""
        settings = self.reconstruction
        transformation = RegionalTransformation(*autoencoder.map_shape, settings.regions, settings.kernel)
        return Renormalization(autoencoder.encoder.channels), transformation

    # The run.

    mean_of_all: Tensor
    std_of_all: Tensor
    ease: Tensor
    best: Tensor
    target: Tensor
    source: Tensor

    def build(self) -> None:
        """Open the suspect and the decoder, and make the trigger."""
        self.classifier = self.open_classifier().requires_grad_(True)
        autoencoder = cast(AutoEncoder, self.open("decoder"))
        if (size := self.classifier.input_size) != autoencoder.size:
            raise ValueError(
                f"Expected a decoder for images of the suspect's size, {size}x{size}, got one for "
                f"{autoencoder.size}x{autoencoder.size}. Train one for that size."
            )
        self.trigger = RegionalTrigger(autoencoder, *self.layers(autoencoder))
        count, channels = self.classifier.num_classes, autoencoder.encoder.channels
        self.register_buffer("mean_of_all", torch.zeros(channels))
        self.register_buffer("std_of_all", torch.zeros(channels))
        self.start, self.bank = TriggerBank(self.trigger, 1), TriggerBank(self.trigger, count)
        for name, value in zip(
            ("alpha", "worked", "failed"), start_cost(count, self.reconstruction.alpha), strict=True
        ):
            self.register_buffer(name, value)
        self.register_buffer("ease", torch.ones(count))
        self.register_buffer("best", torch.tensor(math.inf))
        self.register_buffer("target", torch.tensor(0))
        self.register_buffer("source", torch.tensor(-1))

    def optimizers_by_phase(self) -> Mapping[str, Optimizer]:
        """Make the optimizers of the suspect and, if it has something to train, of the trigger."""
        settings, trigger = self.reconstruction, self.trigger
        rates = ((trigger.renormalization, settings.lr_statistics), (trigger.transformation, settings.lr))
        groups = [{"params": list(layer.parameters()), "lr": lr} for layer, lr in rates if layer is not None]
        made: dict[str, Optimizer] = {"harden": self.optimizer(self.classifier.parameters())}
        self._full_rates = [group["lr"] for group in made["harden"].param_groups]
        if any(phase == "reconstruct" for phase, _ in self.phases()):
            made["reconstruct"] = torch.optim.Adam(groups, betas=(0.5, 0.9))
        return made

    def begin_phase(self, span: Span) -> None:
        """Choose the round's class and start its trigger, or end its reconstruction and set the learning rate."""
        if span.start == 0:
            self._look_at_root()
        if span.phase == "reconstruct" or len(self.phases()) == 1:
            aim = self.schedule.aim(span.round, self.ease, self.seed)
            self.target.fill_(aim.target)
            self.source.fill_(-1 if aim.source is None else aim.source)
            self.best.fill_(math.inf)
            if self.reconstruction.warm:
                self.bank.load(aim.target, self.trigger)
            else:
                self.start.load(0, self.trigger)
                fresh = start_cost(len(self.ease), self.reconstruction.alpha)
                for kept, value in zip(self._alphas(), fresh, strict=True):
                    kept[aim.target] = value[aim.target]
        if span.phase == "harden":
            if self.best.isinf():
                self.bank.store(self.aim.target, self.trigger)
            self.bank.load(self.aim.target, self.trigger)
            for group, full in zip(self.optimizer_of("harden").param_groups, self._full_rates, strict=True):
                group["lr"] = full * (1 + math.cos(math.pi * span.round / self.rounds)) / 2

    def _look_at_root(self) -> None:
        """Measure the root set's channels, and whether the suspect knows decoded images."""
        moments, right, decoded, rows = [], 0, 0, 0
        for batch in self.passes("root", self.classifier):
            images, labels = batch["image"][batch["valid"]], batch["label"][batch["valid"]]
            moments.append(torch.stack(channel_moments(images), 1))
            right += int((self.classifier(images).argmax(1) == labels).sum())
            decoded += int((self.classifier(self.trigger.autoencoder(images)).argmax(1) == labels).sum())
            rows += len(labels)
        self.mean_of_all.copy_(torch.cat(moments).mean(0)[0])
        self.std_of_all.copy_(torch.cat(moments).mean(0)[1])
        if self.trigger.renormalization is not None:
            self.trigger.renormalization.start_at(self.mean_of_all, self.std_of_all)
            self.start.store(0, self.trigger)
            for label in range(len(self.ease)):
                self.bank.store(label, self.trigger)
        if right - decoded > 0.1 * rows:
            warnings.warn(
                f"The suspect's accuracy on root images falls from {right / rows:.3f} to {decoded / rows:.3f} if they "
                "are decoded: it would be hardened against blur. Train the decoder longer, or cut the encoder at an "
                "earlier layer.",
                stacklevel=2,
            )

    @property
    def aim(self) -> Aim:
        """The current round's aim."""
        return Aim(int(self.target), None if self.source < 0 else int(self.source))

    def _alphas(self) -> CostState:
        return CostState(self.alpha, self.worked, self.failed)

    def set_modes(self, phase: str) -> None:
        """Train the suspect in its own phase."""
        self.classifier.train(phase == "harden")

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Compute the phase's loss."""
        return self.reconstruct(batch) if self.span.phase == "reconstruct" else {"loss": self.harden(batch)}

    def reconstruct(self, batch: Batch) -> dict[str, Tensor]:
        """Compute Eq. 8 on the batch's images that the trigger is for; nothing if there are none."""
        aim, settings = self.aim, self.reconstruction
        images = batch["image"][aim.rows(batch["label"])][: settings.images]
        if not len(images):
            return {}
        generated = self.trigger(images)
        logits = self.classifier(generated).float()
        terms = reconstruction_terms(
            self.trigger, images, generated, (self.mean_of_all, self.std_of_all), settings.weights
        )
        quality = torch.stack(list(terms.values())).sum()
        entropy = F.cross_entropy(logits, torch.full((len(logits),), aim.target, device=logits.device))
        rate = (logits.argmax(1) == aim.target).float().mean()
        alpha = self.alpha[aim.target].clone()
        self._judge(aim, rate, quality.detach())
        found = {"loss": entropy + alpha * quality, "success": rate, "entropy": entropy, "alpha": alpha, **terms}
        return {name: value if name == "loss" else value.detach() for name, value in found.items()}

    @torch.no_grad()
    def _judge(self, aim: Aim, rate: Tensor, quality: Tensor) -> None:
        """Keep the trigger if it is the best so far, before the step changes it, and move alpha."""
        settings = self.reconstruction
        if rate >= settings.alpha.threshold and quality < self.best:
            self.best.copy_(quality)
            self.bank.store(aim.target, self.trigger)
        self.ease[aim.target].lerp_(rate, 0.1)
        rates = torch.full_like(self.alpha, torch.nan)
        rates[aim.target] = rate
        for kept, moved in zip(self._alphas(), move_cost(self._alphas(), rates, settings.alpha), strict=True):
            kept.copy_(moved)

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
