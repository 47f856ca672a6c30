"""The stage of SCALE-UP."""

from __future__ import annotations

from typing import Any

import torch

from lit_backdoor.defenses.scale_up.scaled import FACTORS, Scaled
from lit_backdoor.functional.perturbed_predictions import class_statistics
from lit_backdoor.models import Classifier
from lit_backdoor.stages import CalibratedDetection

__all__ = ["ScaleUp"]


class ScaleUp(CalibratedDetection):
    """Flag inputs that keep their class when their pixel values are multiplied (SCALE-UP).

    That is the data-limited form: an input's consistency is compared with that of root images which the suspect gives
    to the same class. The defender sets the threshold in the paper; here a share of root images lies above it.

    Args:
        suspect: Path of a suspect bundle, or a classifier.
        factors: What pixel values are multiplied by, each > 1; values above 1 are cut off. Paper: 3, 5, 7, 9, 11.
        false_alarms: Share of clean inputs that may be flagged, in (0, 1).
        table: CSV file of inputs that ``predict`` writes; None puts ``inputs.csv`` under ``default_root_dir``.

    Raises:
        ValueError: If ``false_alarms`` is out of range; when run, if a factor is.
    """

    def __init__(
        self,
        suspect: str | Classifier,
        factors: tuple[float, ...] = FACTORS,
        false_alarms: float = 0.05,
        table: str | None = None,
    ) -> None:
        super().__init__(suspect, false_alarms, table)
        self.factors = factors

    def detector(self, classifier: Classifier) -> Scaled:
        """Multiply the suspect's inputs."""
        return Scaled(classifier, self.factors)

    def prepare(self) -> None:
        """Measure what is usual for each class; a new detector's score is the consistency itself."""
        detector: Any = self.net.module
        rows = [(detector.judge(batch["image"]), batch["valid"]) for batch in self.passes("root")]
        scores, classes = (torch.cat([found[key][valid] for found, valid in rows]) for key in ("score", "before"))
        detector.take(class_statistics(scores, classes, detector.num_classes))
