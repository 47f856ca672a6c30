"""The phase that MARTINI's stages share: reconstruction of a trigger for one class after another."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from typing import ClassVar, cast

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.optim import Adam, Optimizer

from lit_backdoor.defenses.martini.reconstruction import ReconstructionSettings, TriggerBank, reconstruction_terms
from lit_backdoor.defenses.martini.schedules import Aim
from lit_backdoor.functional.cost_schedule import CostState, move_cost, start_cost
from lit_backdoor.functional.martini import channel_moments
from lit_backdoor.models import AutoEncoder, Classifier, RegionalTransformation, Renormalization
from lit_backdoor.stages.base import Batch
from lit_backdoor.stages.inputs import Takes
from lit_backdoor.stages.phased import Phased, Span
from lit_backdoor.triggers import RegionalTrigger

__all__ = ["Reconstructing"]


class Reconstructing(Phased):
    """Train the two layers of a `RegionalTrigger` by Eq. 8 so that a classifier gives images to a class (Tao et al.).

    The classifier is in eval mode meanwhile. Kept for each class is the trigger that looks most like the clean images
    among those whose attack success rate on a batch reached the rule's threshold; the last one where none did.

    A subclass lays the plan, in whose phase ``reconstruct`` this happens, and chooses the `choose_aim` of each round.

    Args:
        suspect: Path of a suspect bundle, or a classifier (a copy of it is used).
        decoder: Path of a decoder bundle, or an autoencoder for images of the suspect's size.
        reconstruction: Settings of the phase.

    Raises:
        ValueError: When run, if the decoder is for images of another size, or there are more regions than positions.
    """

    takes: ClassVar[Takes] = {**Phased.takes, "decoder": ("decoder",)}
    first_phase: ClassVar[str] = "reconstruct"

    mean_of_all: Tensor
    std_of_all: Tensor
    alpha: Tensor
    worked: Tensor
    failed: Tensor
    ease: Tensor
    best: Tensor
    target: Tensor
    source: Tensor

    def __init__(
        self,
        suspect: str | Classifier,
        decoder: str | AutoEncoder,
        reconstruction: ReconstructionSettings | None = None,
    ) -> None:
        super().__init__()
        self.given(suspect=suspect, decoder=decoder)
        self.reconstruction = reconstruction or ReconstructionSettings()

    def choose_aim(self, number: int) -> Aim:
        """Choose what the trigger of a round is to do."""
        raise NotImplementedError

    def layers(self, autoencoder: AutoEncoder) -> tuple[Renormalization | None, RegionalTransformation | None]:
        """Make the layers of the trigger, Γ and Ψ."""
        settings = self.reconstruction
        transformation = RegionalTransformation(*autoencoder.map_shape, settings.regions, settings.kernel)
        return Renormalization(autoencoder.encoder.channels), transformation

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
        self.start, self.bank = TriggerBank(self.trigger, 1), TriggerBank(self.trigger, count)
        self.register_buffer("mean_of_all", torch.zeros(channels))
        self.register_buffer("std_of_all", torch.zeros(channels))
        for name, value in zip(
            ("alpha", "worked", "failed"), start_cost(count, self.reconstruction.alpha), strict=True
        ):
            self.register_buffer(name, value)
        self.register_buffer("ease", torch.ones(count))  # a moving average of each class's success rate
        self.register_buffer("best", torch.full((count,), math.inf))  # quality of what is kept, in the last round
        self.register_buffer("target", torch.tensor(0))
        self.register_buffer("source", torch.tensor(-1))

    def optimizers_by_phase(self) -> Mapping[str, Optimizer]:
        """Make Adam for the trigger's layers, if there are any."""
        settings, trigger = self.reconstruction, self.trigger
        rates = ((trigger.renormalization, settings.lr_statistics), (trigger.transformation, settings.lr))
        groups = [{"params": list(layer.parameters()), "lr": lr} for layer, lr in rates if layer is not None]
        return {"reconstruct": Adam(groups, betas=(0.5, 0.9))} if groups else {}

    def set_modes(self, phase: str) -> None:
        """Hold the classifier in eval mode."""
        self.classifier.eval()

    def begin_phase(self, span: Span) -> None:
        """Look at the root set before the first phase; begin a round."""
        if span.start == 0:
            self._look_at_root()
        if span.phase == self.first_phase:
            self.begin_round(span.round)

    def begin_round(self, number: int) -> None:
        """Choose the round's class, and load the trigger that it starts from."""
        aim = self.choose_aim(number)
        self.target.fill_(aim.target)
        self.source.fill_(-1 if aim.source is None else aim.source)
        self.best[aim.target] = math.inf
        if self.reconstruction.warm:
            self.bank.load(aim.target, self.trigger)
            return
        self.start.load(0, self.trigger)
        for kept, value in zip(self._alphas(), start_cost(len(self.best), self.reconstruction.alpha), strict=True):
            kept[aim.target] = value[aim.target]

    def end_round(self) -> None:
        """Give the trigger the weights that are kept for the round's class."""
        target = self.aim.target
        if self.best[target].isinf():
            self.bank.store(target, self.trigger)
        self.bank.load(target, self.trigger)

    @property
    def aim(self) -> Aim:
        """What the current round's trigger is to do."""
        return Aim(int(self.target), None if self.source < 0 else int(self.source))

    def _alphas(self) -> CostState:
        return CostState(self.alpha, self.worked, self.failed)

    def _look_at_root(self) -> None:
        """Measure the root set's channels, where Γ starts, and whether the suspect knows decoded images."""
        moments, right, decoded, rows = [], 0, 0, 0
        for batch in self.passes("root", self.classifier):
            images, labels = batch["image"][batch["valid"]], batch["label"][batch["valid"]]
            moments.append(torch.stack(channel_moments(images), 1))
            right += int((self.classifier(images).argmax(1) == labels).sum())
            decoded += int((self.classifier(self.trigger.autoencoder(images)).argmax(1) == labels).sum())
            rows += len(labels)
        mean, std = torch.cat(moments).mean(0)
        self.mean_of_all.copy_(mean)
        self.std_of_all.copy_(std)
        if self.trigger.renormalization is not None:
            self.trigger.renormalization.start_at(mean, std)
            self.start.store(0, self.trigger)
            for label in range(len(self.best)):
                self.bank.store(label, self.trigger)
        if right - decoded > 0.1 * rows:
            warnings.warn(
                f"The suspect's accuracy on root images falls from {right / rows:.3f} to {decoded / rows:.3f} if they "
                "are decoded: it would be hardened against blur. Train the decoder longer, or cut the encoder at an "
                "earlier layer.",
                stacklevel=2,
            )

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Compute the phase's loss."""
        return self.reconstruct(batch)

    def reconstruct(self, batch: Batch) -> dict[str, Tensor]:
        """Compute Eq. 8 on the batch's images that the trigger is for; nothing if there are none."""
        aim, settings = self.aim, self.reconstruction
        images = batch["image"][aim.rows(batch["label"])][: settings.images]
        if not len(images):
            return {}
        generated = self.trigger(images)
        logits = self.classifier(generated).float()
        of_all = (self.mean_of_all, self.std_of_all)
        terms = reconstruction_terms(self.trigger, images, generated, of_all, settings.weights)
        quality = torch.stack(list(terms.values())).sum()
        entropy = F.cross_entropy(logits, torch.full((len(logits),), aim.target, device=logits.device))
        rate = (logits.argmax(1) == aim.target).float().mean()
        alpha = self.alpha[aim.target].clone()
        self._judge(aim.target, rate, quality)
        logged = {"success": rate, "entropy": entropy, "alpha": alpha, **terms}
        return {"loss": entropy + alpha * quality, **{name: value.detach() for name, value in logged.items()}}

    @torch.no_grad()
    def _judge(self, target: int, rate: Tensor, quality: Tensor) -> None:
        """Keep the trigger if it is the best so far, before the step changes it, and move alpha."""
        rule = self.reconstruction.alpha
        if rate >= rule.threshold and quality < self.best[target]:
            self.best[target] = quality
            self.bank.store(target, self.trigger)
        self.ease[target].lerp_(rate, 0.1)
        rates = torch.full_like(self.alpha, torch.nan)
        rates[target] = rate
        for kept, moved in zip(self._alphas(), move_cost(self._alphas(), rates, rule), strict=True):
            kept.copy_(moved)
