"""BTI-DBF (P) that does not rest on one inverted trigger: what works at small scale; not in the paper."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from lit_backdoor.defenses.btidbf.purification import Purification
from lit_backdoor.defenses.btidbf.settings import Decoupling, Inversion
from lit_backdoor.errors import check_share
from lit_backdoor.functional.decoupling import occlusions, pieces
from lit_backdoor.models import Classifier, LocalPattern, PatternedUNet, UNet

__all__ = ["VariedPurification"]


class VariedPurification(Purification):
    """Purify triggers unlike any one that was inverted: each round inverts a new one, and the lesson varies them all.

    With a single generator the purifier learns to know its pattern, and the better it does, the less it does to the
    attacker's. So rounds begin with new generators, in turn a pattern over the whole image and one at a small place;
    the triggers of all rounds so far stay in the lesson, the former in random pieces at random strength, the latter
    half of the time moved to a random place; and a share of images is covered by random rectangles instead. Within a
    round the purifier's learning rate falls, so that it ends where it settles.

    Args:
        suspect: Path of a suspect bundle, or a classifier; frozen.
        decoupling: Settings of the mask (Eq. 1).
        inversion: Settings of the generators (Eq. 2).
        purifier: The net to train; default a `UNet`.
        rounds: Rounds R1.
        purify_epochs: Epochs of the purifier in each round.
        local_share: Share of the pixels that the pattern at a small place covers, in (0, 1).
        occluded: Share of the images that are covered by rectangles instead of a trigger, in (0, 1).
        lr: Learning rate of Adam on the purifier at the beginning of a round.
        image_weight: Weight of the image error.
        feature_weight: Weight of the feature error.
        benign_weight: Weight of the benign loss (Eq. 6); 0 is the ablation of Fig. 8.

    Raises:
        ValueError: If an option is out of range; when run, if ``max_epochs`` is not what rounds and phases make.
    """

    def __init__(
        self,
        suspect: str | Classifier,
        decoupling: Decoupling | None = None,
        inversion: Inversion | None = None,
        purifier: UNet | None = None,
        rounds: int = 8,
        purify_epochs: int = 3,
        local_share: float = 0.03,
        occluded: float = 0.3,
        lr: float = 2e-3,
        image_weight: float = 1.0,
        feature_weight: float = 1.0,
        benign_weight: float = 1.0,
    ) -> None:
        super().__init__(
            suspect,
            decoupling,
            inversion or Inversion(epochs=2, first_epochs=3, toward_target=True),
            None,
            purifier,
            rounds,
            purify_epochs,
            lr=lr,
            image_weight=image_weight,
            far_weight=image_weight,
            feature_weight=feature_weight,
            benign_weight=benign_weight,
        )
        self.rounds = rounds
        self.local_share = check_share("the share of pixels of a local pattern", local_share)
        self.occluded = check_share("the share of occluded images", occluded)

    def make_generators(self) -> list[nn.Module]:
        """Make one for each round, in turn over the whole image and at a small place."""
        size = self.subject.input_size
        return [
            LocalPattern(size, self.local_share) if number % 2 else PatternedUNet(size) for number in range(self.rounds)
        ]

    def on_train_epoch_start(self) -> None:
        """Begin a phase where it is due, and let the purifier's learning rate fall within its own."""
        super().on_train_epoch_start()
        span = self.span
        if span.phase == "purify":
            passed = (self.current_epoch - span.start) / span.epochs
            for group in self._optimizer(span.phase).optimizer.param_groups:
                group["lr"] = self.lr * (1 + math.cos(math.pi * passed)) / 2

    def triggered(self, images: Tensor) -> Tensor:
        """Give every image a trigger of one of the rounds so far, or cover a part of it."""
        count = self.span.round + 1
        owner = torch.randint(count, (len(images),))
        owner[torch.rand(len(images)) < self.occluded] = count
        result = occlusions(images)
        for number in range(count):
            rows = (owner == number).nonzero().flatten().to(images.device)
            if len(rows):
                result[rows] = _varied(self.generators[number], images[rows])
        return result


def _varied(generator: nn.Module, images: Tensor) -> Tensor:
    """Vary a generator's trigger: pieces of one over the whole image, other places of a local one."""
    if isinstance(generator, LocalPattern):
        return generator.moved(images)
    return pieces(images, generator(images).to(images.dtype))
