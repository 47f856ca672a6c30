"""BTI-DBF (P) that does not rest on one inverted trigger: which works at small scale; not in the paper."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from lit_backdoor.defenses.btidbf.purification import BTIDBFPurification
from lit_backdoor.defenses.btidbf.settings import Decoupling, InversionSettings
from lit_backdoor.errors import check_share
from lit_backdoor.functional.decoupling import occlusions, pieces
from lit_backdoor.models import Classifier, LocalPattern, UNet, WideAndLocal

__all__ = ["BTIDBFVariedPurification"]


class BTIDBFVariedPurification(BTIDBFPurification):
    """Train BTI-DBF's purifier on varied forms of many triggers: each round inverts new ones, and keeps the old ones.

    With a single generator the purifier learns that generator's pattern only, and removes the attacker's less and less.
    So each round trains two new generators, one of a pattern over the whole image and one restricted to a small patch;
    the purifier learns from the triggers of all rounds so far, the former in random pieces at random strength, the
    latter also at other places and in other colors; and random rectangles cover a share of the images instead. Over
    the run the purifier's learning rate falls to zero by a half cosine, so that it settles.

    Args:
        suspect: Path of a suspect bundle, or a classifier; frozen.
        decoupling: Settings of the mask (Eq. 1).
        inversion: Settings of the generators (Eq. 2).
        purifier: The net to train; default a `UNet`.
        rounds: Rounds R1.
        purify_epochs: Epochs of the purifier in each round.
        local_share: Share of the pixels that the pattern at a small place covers, in (0, 1).
        occluded: Share of the images that are covered by rectangles instead of a trigger, in (0, 1).
        lr: Learning rate of Adam on the purifier at the beginning.
        image_weight: Weight of the image error.
        feature_weight: Weight of the feature error.
        benign_weight: Weight of the benign loss (Eq. 6); 0 is the ablation of Fig. 8.

    Raises:
        ValueError: If an option is out of range; when run, if ``max_epochs`` contradicts rounds and phases.
    """

    def __init__(
        self,
        suspect: str | Classifier,
        decoupling: Decoupling | None = None,
        inversion: InversionSettings | None = None,
        purifier: UNet | None = None,
        rounds: int = 4,
        purify_epochs: int = 6,
        local_share: float = 0.03,
        occluded: float = 0.35,
        lr: float = 2e-3,
        image_weight: float = 1.0,
        feature_weight: float = 1.0,
        benign_weight: float = 1.0,
    ) -> None:
        super().__init__(
            suspect,
            decoupling,
            inversion or InversionSettings(epochs=2, first_epochs=3, toward_target=True),
            None,
            purifier,
            rounds,
            purify_epochs,
            lr=lr,
            image_weight=image_weight,
            feature_weight=feature_weight,
            benign_weight=benign_weight,
        )
        self.rounds = rounds
        self.local_share = check_share("the share of pixels of a local pattern", local_share)
        self.occluded = check_share("the share of occluded images", occluded)

    def make_generators(self) -> list[nn.Module]:
        """Make two for each round."""
        return [WideAndLocal(self.subject.input_size, self.local_share) for _ in range(self.rounds)]

    @property
    def generator(self) -> nn.Module:
        """The generators of the current round."""
        return self.generators[self.span.round]

    def trained_in(self, number: int) -> list[nn.Module]:
        """Give a round's own."""
        return [self.generators[number]]

    def begin_epoch(self) -> None:
        """Begin a phase where it is due, and let the purifier's learning rate fall over all rounds."""
        super().begin_epoch()
        span = self.span
        if span.phase == "purify":
            done = self.current_epoch - span.start + span.round * span.epochs
            passed = done / (self.rounds * span.epochs)
            for group in self.optimizer_of(span.phase).optimizer.param_groups:
                group["lr"] = self.lr * (1 + math.cos(math.pi * passed)) / 2

    def triggered(self, images: Tensor) -> Tensor:
        """Give every image a trigger of one of the rounds so far, or cover a part of it."""
        known = [net for pair in list(self.generators)[: self.span.round + 1] for net in pair.children()]
        owner = torch.randint(len(known), (len(images),))
        owner[torch.rand(len(images)) < self.occluded] = len(known)
        result = occlusions(images)
        for number, generator in enumerate(known):
            rows = (owner == number).nonzero().flatten().to(images.device)
            if len(rows):
                result[rows] = _varied(generator, images[rows])
        return result


def _varied(generator: nn.Module, images: Tensor) -> Tensor:
    """Vary a generator's trigger: pieces of one over the whole image, other places and colors of a local one."""
    if isinstance(generator, LocalPattern):
        return generator.varied(images)
    return pieces(images, generator(images).to(images.dtype))
