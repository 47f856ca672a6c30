"""Detection of the target class by MARTINI's reconstruction: the class whose trigger changes images least (ours)."""

from __future__ import annotations

import copy
import math
from typing import Any, ClassVar

import torch

from lit_backdoor.defenses.martini.reconstructing import Reconstructing
from lit_backdoor.defenses.martini.reconstruction import ReconstructionSettings
from lit_backdoor.defenses.martini.schedules import Aim
from lit_backdoor.models import AutoEncoder, Classifier
from lit_backdoor.stages.base import Outcome
from lit_backdoor.stages.evaluation import Evaluator, ReconstructionEvaluator
from lit_backdoor.stages.phased import make_plan
from lit_backdoor.stages.target_detection import TargetReport, reported
from lit_backdoor.triggers import RegionalTrigger

__all__ = ["MartiniDetection"]


class MartiniDetection(Reconstructing):
    """Reconstruct a trigger for every class of a suspect, one after the other, and compare what they cost.

    The paper reconstructs triggers to harden a model, not to judge it; the comparison is ours. A class's statistic is
    the weighted sum of the terms of Eq. 8 but the cross-entropy, of the best trigger that reached the rule's success
    rate; infinite if none did. Classes are flagged by `mad_index`.

    Args:
        suspect: Path of a suspect bundle, or a classifier; it does not change.
        decoder: Path of a decoder bundle, or an autoencoder for images of the suspect's size.
        reconstruction: Settings of the reconstruction, its epochs for each class.
        num_classes: Number of classes of the suspect.
        index_threshold: Anomaly index above which a class is flagged.

    Raises:
        ValueError: If a number is out of range; when run, if the suspect has another number of classes or the decoder
            is for images of another size.
    """

    kind: ClassVar[str | None] = "targets"

    def __init__(
        self,
        suspect: str | Classifier,
        decoder: str | AutoEncoder,
        reconstruction: ReconstructionSettings | None = None,
        num_classes: int = 10,
        index_threshold: float = 2.0,
    ) -> None:
        super().__init__(suspect, decoder, reconstruction)
        if num_classes < 1 or not 0 < index_threshold < math.inf:
            raise ValueError(
                f"Expected num_classes >= 1 and index_threshold > 0, got {num_classes} and {index_threshold}."
            )
        self.num_classes = num_classes
        self.index_threshold = index_threshold
        self.plan = make_plan(("reconstruct", label, self.reconstruction.epochs) for label in range(num_classes))

    def build(self) -> None:
        """Open suspect and decoder."""
        super().build()
        if (found := self.classifier.num_classes) != self.num_classes:
            raise ValueError(
                f"Expected a suspect with {self.num_classes} classes, got {found}. Set num_classes={found}."
            )
        self.classifier.requires_grad_(False)

    def choose_aim(self, number: int) -> Aim:
        """Take the classes in order."""
        return Aim(number)

    def report(self) -> TargetReport:
        """Flag classes by the quality of their triggers; none if fewer than three classes were reached.

        Raises:
            ValueError: If the reconstruction has not run yet.
        """
        if not self.ready:
            raise ValueError(f"Expected {type(self).__name__} to have run; call fit before its report is read.")
        numbers: dict[str, Any] = {"classes_reached": int(self.best.isfinite().sum()), "alpha": self.alpha.tolist()}
        if numbers["classes_reached"] < 3:
            return TargetReport(self.best, torch.full_like(self.best, -math.inf), (), numbers)
        return TargetReport.by_mad(self.best, self.index_threshold, **numbers)

    def trigger_of(self, label: int) -> RegionalTrigger:
        """Give the trigger that was reconstructed for a class."""
        made = copy.deepcopy(self.trigger)
        self.bank.load(label, made)
        return made.eval()

    def outcome(self) -> Outcome:
        """Export the report, with the triggers of the flagged classes, or else of the most suspicious one."""
        return reported(self.report(), self.trigger_of)

    def evaluator(self) -> Evaluator:
        """Compare with the attack, and measure the most suspicious class's trigger."""
        report = self.report()
        made = self.trigger_of(report.flagged[0] if report.flagged else report.top)
        return ReconstructionEvaluator(self.attached_data, report.flagged, report.top, self.classifier, made)
