"""NT-PGBD: PGBD without a known target, by taking the classes for it in turn (Sec. 6)."""

from __future__ import annotations

import warnings
from typing import Any, ClassVar

import torch
from torch import Tensor

from lit_backdoor.defenses.pgbd.sanitization import PrototypeFineTune
from lit_backdoor.models import Classifier
from lit_backdoor.stages.inputs import Takes
from lit_backdoor.stages.target_detection import read_report

__all__ = ["NTPGBD"]


class NTPGBD(PrototypeFineTune):
    """PGBD without a known target: take each class for it in turn; also against all-to-all attacks.

    A turn lasts some epochs, and turns are repeated. Prototypes and vectors are rebuilt at every switch;
    ``geometry.update`` is not used. A class that the root set lacks has no turn, with a warning.

    Args:
        suspect: Path of a suspect bundle, or a classifier (a copy of it is tuned).
        interval: Epochs of each turn. Paper: 3 for CIFAR-10, 1 for many classes.
        candidates: Path of a bundle of kind ``targets``: only its most suspicious classes have turns, the most
            suspicious first. Classes that its detector found no number for have none.
        top: How many of the candidates have turns; the paper's top k.
        **options: Further arguments of `PrototypeFineTune`.

    Raises:
        ValueError: If an option is unknown, ``interval`` or ``top`` not positive, or vectors are to be smoothed, which
            would mix those of different targets.
    """

    takes: ClassVar[Takes] = {**PrototypeFineTune.takes, "candidates": ("targets",)}

    def __init__(
        self,
        suspect: str | Classifier,
        interval: int = 1,
        candidates: str | None = None,
        top: int = 3,
        **options: Any,
    ) -> None:
        if "target" in options:
            raise ValueError(f"Expected no target for {type(self).__name__}, which tries all; PGBD takes one.")
        super().__init__(suspect, **options)
        if not (isinstance(interval, int) and isinstance(top, int)) or interval < 1 or top < 1:
            raise ValueError(f"Expected interval and top as whole numbers of at least 1, got {interval} and {top}.")
        if self.geometry.smoothed != "prototypes":
            raise ValueError("Expected geometry.smoothed: prototypes, since vectors change their target at every turn.")
        self.interval = interval
        self.given(candidates=candidates)
        self.top = top

    @property
    def gap(self) -> int:
        """Epochs between rebuildings: a turn."""
        return self.interval

    def find_leads(self) -> Tensor:
        """Make room for one target, and find the classes that have turns."""
        self.turns = list(range(self.classifier.num_classes))
        bundle = self.bundle("candidates")
        if bundle is not None:
            statistic = read_report(bundle).statistic
            if len(statistic) != len(self.turns):
                reported = len(statistic)
                raise ValueError(f"Expected candidates among {len(self.turns)} classes, got a report on {reported}.")
            known = [label for label in statistic.argsort(stable=True).tolist() if statistic[label].isfinite()]
            if known:
                self.turns = known[: self.top]
            else:
                warnings.warn("The candidates' report has no number on any class: all have turns.", stacklevel=2)
        return torch.zeros(1, self.classifier.num_classes).long()

    def on_fit_start(self) -> None:
        """Skip classes missing from the root set."""
        super().on_fit_start()
        there = set(self.data.get_view("root").label.tolist())
        missing = sorted(set(self.turns) - there)
        self.turns = [label for label in self.turns if label in there]
        if missing:
            warnings.warn(f"The root set has no image of classes {missing}: they have no turn as target.", stacklevel=2)
        epochs, needed = self.trainer.max_epochs or 0, self.interval * len(self.turns)
        if 0 < epochs < needed:
            warnings.warn(
                f"Turns of {len(self.turns)} classes take {needed} epochs, but max_epochs is {epochs}: only the first "
                f"{-(-epochs // self.interval)} are tried as target.",
                stacklevel=2,
            )
        if not self.turns:
            raise ValueError(f"Expected root images of at least one candidate class, got none of {missing}.")

    def begin_epoch(self) -> None:
        """Say whose turn it is, before vectors are rebuilt."""
        self.leads.fill_(self.turns[self.current_epoch // self.interval % len(self.turns)])
        super().begin_epoch()
