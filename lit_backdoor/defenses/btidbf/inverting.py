"""The rounds of trigger inversion that every stage of BTI-DBF has: decoupling, inversion, votes (Eq. 1 and 2)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Adam, Optimizer

from lit_backdoor.defenses.btidbf.decoupled import Decoupled
from lit_backdoor.defenses.btidbf.settings import Decoupling, InversionSettings
from lit_backdoor.errors import settings
from lit_backdoor.functional.decoupling import error, hinged_loss, inversion_loss, tau_to_pixels
from lit_backdoor.metrics import TargetVotes
from lit_backdoor.models import Classifier, PatternedUNet, UNet, WarpField
from lit_backdoor.stages.base import Batch
from lit_backdoor.stages.phased import Span, make_plan

__all__ = ["Generator", "Inverting"]

Generator = UNet | WarpField

_ENOUGH = 0.9  # share of votes from which a generator counts as the right kind


class Inverting(Decoupled):
    """Rounds of a ``mask`` and an ``invert`` phase, after a ``warmup``; a subclass may add a phase of its own.

    The class that most generated root images are sent to is the detected target, voted after the first inversion. Of
    several generators, each is trained in the first round on its own, and the first whose class gets nearly all votes
    (.9) is kept, otherwise the one with most votes. The most constrained comes first: one warp of all images seldom
    sends them to one class unless a warp is the trigger, while on a model that knows a warp as trigger a change of
    pixels may well send all of them to another class.

    Args:
        decoupling: Settings of the mask.
        inversion: Settings of the generator.
        generator: The net to train, or several to choose from; default a `WarpField` and a `PatternedUNet`. None may
            start at the identity, where the objective has no gradient.
        rounds: Rounds R1.
        own_phase: Name and epochs of the phase that a subclass adds to each round.

    Raises:
        ValueError: If there is no round or no generator.
    """

    target: Tensor
    share: Tensor

    def __init__(
        self,
        decoupling: Decoupling | None,
        inversion: InversionSettings | None,
        generator: Generator | Sequence[Generator] | None,
        rounds: int = 1,
        own_phase: tuple[str, int] | None = None,
    ) -> None:
        super().__init__(settings("decoupling", decoupling, Decoupling) or Decoupling())
        if rounds < 1:
            raise ValueError(f"Expected at least one round, got rounds={rounds}.")
        self.inversion = settings("inversion", inversion, InversionSettings) or InversionSettings()
        self.own_phase = own_phase
        self.plan = make_plan(self._phases(rounds))
        self._candidates = [generator] if isinstance(generator, nn.Module) else generator
        if self._candidates is not None and not len(self._candidates):
            raise ValueError("Expected at least one generator to choose from, got none.")
        self._known: tuple[Tensor, Tensor] | None = None  # rows of the root set and their features, in one phase
        self.chosen = 0  # a number, not a buffer: a step must not wait for the device to know its generator
        self.register_buffer("target", torch.tensor(-1))
        self.register_buffer("share", torch.tensor(torch.nan))

    def _phases(self, rounds: int) -> Iterator[tuple[str, int, int]]:
        yield "warmup", 0, self.inversion.warmup_epochs
        for number in range(rounds):
            yield "mask", number, self.decoupling.epochs
            yield "invert", number, self.inversion.epochs_of(number)
            if self.own_phase is not None:
                yield self.own_phase[0], number, self.own_phase[1]

    @property
    def _first_inverted(self) -> int:
        """Epochs until the first inversion is over."""
        return next(span.stop for span in self.plan if span.phase == "invert")

    def build_inversion(self) -> None:
        """Make probe, mask and generator; the subject must be there."""
        self.build_mask()
        self.generators = nn.ModuleList(self.make_generators())
        settings, std = self.inversion, self.subject.std
        pixel = settings.units == "pixel"
        self.tau = settings.tau if pixel else tau_to_pixels(settings.tau, std, settings.norm)
        # one unit of error of normalized images, in pixels: the release's constants are in such units
        self.unit = tau_to_pixels(1.0, std, settings.norm)

    def make_generators(self) -> Sequence[nn.Module]:
        """Make the generators to choose from."""
        if self._candidates is not None:
            return self._candidates
        pixels = PatternedUNet(self.subject.input_size)
        return [WarpField(), pixels]

    @property
    def generator(self) -> nn.Module:
        """The generator that was chosen; before that the first."""
        return self.generators[self.chosen]

    def trained_in(self, number: int) -> Sequence[nn.Module]:
        """Give the generators that a round trains; rounds are counted from 0."""
        return [self.generator] if number else list(self.generators)

    def optimizers_by_phase(self) -> Mapping[str, Optimizer]:
        """Make Adam for the mask, and another one for the generators."""
        generator = Adam(self.generators.parameters(), lr=self.inversion.lr)
        return {
            "mask": Adam([self.raw_mask], lr=self.decoupling.lr),
            "warmup": generator,
            "invert": generator,
        }

    def begin_phase(self, span: Span) -> None:
        """Begin a mask phase anew."""
        if span.phase == "mask":
            self.begin_mask(span)

    def on_train_epoch_end(self) -> None:
        """Count the votes and choose, once the first inversion is over."""
        super().on_train_epoch_end()
        if self.current_epoch + 1 == self._first_inverted:
            self.vote()

    def set_modes(self, phase: str) -> None:
        """Everything is in eval mode but for the probe's norms in the mask phase."""
        self.subject.eval()
        self.set_probe_mode(phase)

    def begin_epoch(self) -> None:
        """Begin the phase; without augmentation, compute once the features that all of its epochs compare with."""
        if self.current_epoch >= self._first_inverted and self.target < 0:
            self.vote()  # a run that resumes after an epoch's last step has no end of that epoch
        super().begin_epoch()
        if self.current_epoch == self.span.start:
            self._known = None
        net = {"warmup": self.subject, "invert": self.reference, "purify": self.subject}.get(self.span.phase)
        if net is not None and self._known is None and self.data.augment is None:
            self._known = self._features_of_root(net)

    def _features_of_root(self, net: Classifier) -> tuple[Tensor, Tensor]:
        rows, parts = [], []
        for batch in self.passes("root"):
            rows.append(batch["index"][batch["valid"]])
            parts.append(self.features(net, batch["image"])[batch["valid"]])
        order = torch.cat(rows).argsort()
        return torch.cat(rows)[order], torch.cat(parts)[order]

    @torch.no_grad()
    def features_of(self, net: Classifier, batch: Batch) -> Tensor:
        """Give the features of a batch's images, as far as they are known already."""
        if self._known is None:
            return self.features(net, batch["image"])
        rows, features = self._known
        return features[torch.searchsorted(rows, batch["index"])]

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Compute the phase's loss."""
        span = self.span
        if span.phase == "mask":
            return self.mask_losses(batch)
        one = self.warmup_losses if span.phase == "warmup" else self.invert_losses
        # the sum trains each on its own: no weight is shared
        nets = self.trained_in(span.round)
        found = [one(span, batch, net) for net in nets]
        logged: dict[str, Tensor] = {}
        for net, values in zip(nets, found, strict=True):
            prefix = f"{type(net).__name__}_" if len(nets) > 1 else ""
            logged |= {prefix + name: value for name, value in values.items()}
        return {**logged, "loss": torch.stack([values["loss"] for values in found]).sum()}

    def seen(self, span: Span, generated: Tensor) -> Tensor:
        """Give what the classifier sees of generated images."""
        return generated

    @property
    def reference(self) -> Classifier:
        """The net whose features are compared."""
        return self.probe if self.inversion.statistics == "refreshed" else self.subject

    def warmup_losses(self, span: Span, batch: Batch, generator: nn.Module) -> dict[str, Tensor]:
        """Reproduce images and their features: the release's first step, without its term on soft labels."""
        images, norm = batch["image"], self.inversion.norm
        generated = generator(images)
        features = self.features_of(self.subject, batch)
        image = error(generated, images, norm) / self.unit
        weight = torch.where(image > 0.1, 100.0, 0.01)
        return {"loss": weight * image + error(self.features(self.subject, generated), features, norm)}

    def invert_losses(self, span: Span, batch: Batch, generator: nn.Module) -> dict[str, Tensor]:
        """Compute Eq. 2 on one batch of root images."""
        images, settings = batch["image"], self.inversion
        generated = generator(images)
        seen = self.seen(span, generated)
        parts = inversion_loss(
            images,
            generated,
            self.features_of(self.reference, batch),
            self.features(self.reference, seen),
            self.mask,
            tau=self.tau,
            feature_bound=settings.feature_bound,
            benign_weight=settings.benign_weight,
            norm=settings.norm,
        )
        loss = parts.loss
        if settings.bound == "hinge":
            loss = hinged_loss(parts, self.tau, settings.benign_weight)
        if settings.toward_target and span.round:
            labels = self.target.expand(len(images))
            loss = loss + parts.bounded * F.cross_entropy(self.subject(seen).float(), labels)
        named = {"image_error": parts.image, "benign_error": parts.benign, "backdoor_error": parts.backdoor}
        return {"loss": loss, **named, "bounded": parts.bounded.float()}

    def vote(self) -> None:
        """Count where the subject sends the images of each of the first round's generators, and choose one."""
        found = [self._votes_of(net) for net in self.trained_in(0)]
        shares = [float(votes["share"]) for votes in found]
        sure = (number for number, share in enumerate(shares) if share >= _ENOUGH)
        best = next(sure, shares.index(max(shares)))
        self.chosen = best
        self.target.copy_(found[best]["target"])
        self.share.copy_(found[best]["share"])

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Note which generator was chosen."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["lit_backdoor"]["chosen"] = self.chosen

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the choice up again.

        Raises:
            ValueError: If another stage wrote the checkpoint.
        """
        super().on_load_checkpoint(checkpoint)
        self.chosen = checkpoint["lit_backdoor"]["chosen"]

    def _votes_of(self, generator: nn.Module) -> dict[str, Tensor]:
        votes = TargetVotes(self.subject.num_classes).to(self.device)
        for batch in self.passes("root", self.subject, generator):
            votes.update(self.subject(generator(batch["image"])), batch["valid"])
        return votes.compute()

    def numbers(self) -> dict[str, Any]:
        """Name the class that the first round found, its share of votes, and the generator, where one was chosen."""
        found = {"target_class": int(self.target), "target_share": float(self.share)}
        return found | ({"generator": type(self.generator).__name__} if len(self.trained_in(0)) > 1 else {})
