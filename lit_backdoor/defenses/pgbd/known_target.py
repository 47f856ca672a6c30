"""PGBD with a target that is known or was detected."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from lit_backdoor.defenses.pgbd.leads import constant_leads, mapped_leads
from lit_backdoor.defenses.pgbd.sanitization import PrototypeFineTune
from lit_backdoor.models import Classifier
from lit_backdoor.stages.target_detection import targets_given

__all__ = ["PGBD"]


class PGBD(PrototypeFineTune):
    """Fine-tune a suspect on root data, and penalize movement of activations from a class's prototype to the target's.

    Args:
        suspect: Path of a suspect bundle, or a classifier (a copy of it is tuned).
        target: The target class; or the path of a bundle of kind ``targets`` or ``trigger`` that names it: with several
            flagged classes all are treated, with none the suspect goes on unchanged; or, for an attack from all to all
            that is known, the class that each class is led to.
        **options: Further arguments of `PrototypeFineTune`.

    Raises:
        ValueError: If an option or a class is unknown; else as `PrototypeFineTune`.
    """

    def __init__(self, suspect: str | Classifier, target: int | str | list[int], **options: Any) -> None:
        super().__init__(suspect, **options)
        self.given(target=list(target) if isinstance(target, tuple) else target)

    def check_classes(self, num_classes: int) -> None:
        """Check a map of the classes."""
        if isinstance(self.arguments["target"], list):
            mapped_leads(self.arguments["target"], num_classes)

    def find_leads(self) -> Tensor:
        """Lead every class to each target, or each to its own."""
        num_classes, target = self.classifier.num_classes, self.arguments["target"]
        if isinstance(target, list):
            return mapped_leads(target, num_classes)
        return constant_leads(targets_given(self, num_classes), num_classes)

    def numbers(self) -> dict[str, Any]:
        """Name the target, or none."""
        if isinstance(self.arguments["target"], list):
            return {"target_classes": self.arguments["target"]}
        targets = self.leads[:, 0].tolist()
        return {"target_class": targets[0] if targets else None, "target_classes": targets}
