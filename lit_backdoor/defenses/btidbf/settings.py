"""Settings of BTI-DBF's two steps."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from lit_backdoor.errors import one_of

__all__ = ["Decoupling", "InversionSettings"]

Norm = Literal["l2", "l1"]


@dataclass(frozen=True)
class Decoupling:
    """How benign features are decoupled (Eq. 1).

    Attributes:
        epochs: Epochs of the mask in each round. Paper and release: 20.
        lr: Learning rate of Adam on the mask. Paper and release: .01.
        mask: ``learned``; or all ``zeros`` or ``ones``, the ablations without decoupling (Table 4 has zeros). They keep
            the phase, which then only refreshes statistics.
        start: Where the mask begins in each round: ``zeros`` of its raw form, a mask of .5 (paper), or ``normal``
            draws (release).
        batch_norm: Mode of norms in this phase, on a copy: ``train`` uses the root set's statistics and refreshes the
            copy's running ones, ``eval`` takes the suspect's as they are, poisoned rows' share included.
        layer: Layer of the net whose output is the feature, as `Classifier.layer_names` has it; None for the
            classifier's own split (Table 11: later layers do better).

    Raises:
        ValueError: If a number is out of range or an option unknown.
    """

    epochs: int = 2
    lr: float = 0.1
    mask: Literal["learned", "zeros", "ones"] = "learned"
    start: Literal["zeros", "normal"] = "normal"
    batch_norm: Literal["train", "eval"] = "train"
    layer: str | None = None

    def __post_init__(self) -> None:
        _positive("decoupling.lr", self.lr)
        _positive("decoupling.epochs", self.epochs)
        one_of("decoupling.mask", self.mask, ("learned", "zeros", "ones"))
        one_of("decoupling.start", self.start, ("zeros", "normal"))
        one_of("decoupling.batch_norm", self.batch_norm, ("train", "eval"))


@dataclass(frozen=True)
class InversionSettings:
    """How the trigger is inverted (Eq. 2).

    Attributes:
        epochs: Epochs of the generator in each round. Release: 30.
        first_epochs: The same in the first round; None for no difference.
        warmup_epochs: Epochs before the first round in which the generator learns to reproduce images and their
            features. Release: 50; a generator that starts near the identity needs none.
        lr: Learning rate of Adam on the generator. Release: 1e-3; paper: .01.
        tau: Bound on the change of images, > 0: mean squared (or absolute) error.
        units: Unit of tau: ``pixel`` s in [0, 1], or ``normalized`` by the classifier (paper and release: .3).
        norm: ``l2`` (mean squared) or ``l1`` (mean absolute), for images and features alike.
        feature_bound: Bound on the change of benign features. Release: 3.
        benign_weight: Weight of the benign term. Release: .01; paper: 1.
        bound: How tau holds. ``branch``: a batch beyond it is pulled back by its image error alone (release).
            ``hinge``: minimize 10 max(0, image / tau - 1) + benign_weight * benign - log(backdoor), whose parts keep
            their balance however little the features change.
        statistics: Whose norm statistics features are taken with: the copy's as ``refreshed`` by the mask phase, or the
            ``suspect`` 's own (paper and release).
        toward_target: From the second round on, also pull the suspect's prediction to the class that the first round
            found (release, U).

    Raises:
        ValueError: If a number is out of range or an option unknown.
    """

    epochs: int = 3
    first_epochs: int | None = None
    warmup_epochs: int = 0
    lr: float = 1e-3
    tau: float = 0.018
    units: Literal["pixel", "normalized"] = "pixel"
    norm: Norm = "l2"
    feature_bound: float = 3.0
    benign_weight: float = 0.01
    bound: Literal["branch", "hinge"] = "hinge"
    statistics: Literal["refreshed", "suspect"] = "refreshed"
    toward_target: bool = False

    def __post_init__(self) -> None:
        _positive("inversion.tau", self.tau)
        _positive("inversion.lr", self.lr)
        _positive("inversion.epochs", self.epochs)
        _positive("inversion.first_epochs", 1 if self.first_epochs is None else self.first_epochs)
        if self.warmup_epochs < 0:
            raise ValueError(f"Expected inversion.warmup_epochs to be 0 or more, got {self.warmup_epochs}.")
        one_of("inversion.units", self.units, ("pixel", "normalized"))
        one_of("inversion.norm", self.norm, ("l2", "l1"))
        one_of("inversion.bound", self.bound, ("branch", "hinge"))
        one_of("inversion.statistics", self.statistics, ("refreshed", "suspect"))

    def epochs_of(self, number: int) -> int:
        """Give the epochs of a round, counted from 0."""
        return self.epochs if number or self.first_epochs is None else self.first_epochs


def _positive(name: str, value: float) -> None:
    if not 0 < value < math.inf:
        raise ValueError(f"Expected {name} > 0 and finite, got {value}.")
