"""The stage of SCALE-UP."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lit_backdoor.defenses.scale_up.scaled import FACTORS, Scaled
from lit_backdoor.functional.perturbed_predictions import class_statistics
from lit_backdoor.models import Classifier
from lit_backdoor.stages import CalibratedDetection

__all__ = ["ScaleUp"]


class ScaleUp(CalibratedDetection):
    """Flag inputs that keep their class when their pixel values are multiplied (SCALE-UP).

    That is the data-limited form: an input's consistency is compared with that of root images of the class that the
    suspect gives to the input. The defender sets the threshold in the paper; here a share of root images lies above it.

    Args:
        suspect: Path of a suspect bundle, or a classifier.
        factors: What pixel values are multiplied by, each > 1; values above 1 are cut off. Paper: 3, 5, 7, 9, 11.
        false_alarms: Share of clean inputs that may be flagged, in (0, 1).
        threshold: Threshold on the compared consistency; None lets root images set it. BackdoorBox: .5.
        table: CSV file of inputs that ``predict`` writes; None puts ``inputs.csv`` under ``default_root_dir``.

    Raises:
        ValueError: If ``false_alarms`` is out of range; when run, if a factor is.
    """

    def __init__(
        self,
        suspect: str | Classifier,
        factors: tuple[float, ...] = FACTORS,
        false_alarms: float = 0.05,
        threshold: float | None = None,
        table: str | None = None,
    ) -> None:
        super().__init__(suspect, false_alarms, table)
        self.factors, self.threshold = factors, threshold

    def detector(self, classifier: Classifier) -> Scaled:
        """Multiply the suspect's inputs."""
        return Scaled(classifier, self.factors)

    def prepare(self) -> None:
        """Measure what is usual for each class; a new detector's score is the consistency itself."""
        detector: Any = self.net.module
        rows = []
        for batch in self.passes("root"):
            valid = batch["valid"]
            rows.append((detector.judge(batch["image"])["score"][valid], batch["label"][valid]))
        scores, labels = (torch.cat(column) for column in zip(*rows, strict=True))
        detector.take(class_statistics(scores, labels, detector.num_classes))

    def boundary(self, scores: Tensor) -> Tensor:
        """Give the threshold, set or not."""
        return super().boundary(scores) if self.threshold is None else scores.new_tensor(self.threshold)
