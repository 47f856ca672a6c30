"""Detection of triggered inputs by a score whose threshold root images set."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from lit_backdoor.errors import check_share
from lit_backdoor.models import Classifier, Frozen, PerturbedQueries
from lit_backdoor.stages.base import Batch
from lit_backdoor.stages.evaluation import Evaluator
from lit_backdoor.stages.input_table import InputTable

__all__ = ["CalibratedDetection"]


class CalibratedDetection(InputTable):
    """Flag inputs whose score is above what a share of root images reach.

    A subclass makes the detector in `detector`, and may let it take more than the threshold from root images, in
    `prepare`. Whether a test image is triggered plays no part.

    Args:
        suspect: Path of a suspect bundle, or a classifier.
        false_alarms: Share of clean inputs that may be flagged, in (0, 1).
        table: CSV file of inputs that ``predict`` writes; None puts ``inputs.csv`` under ``default_root_dir``.

    Raises:
        ValueError: If the share is out of range.
    """

    views: ClassVar[tuple[str, ...]] = ("root", "clean")
    selection: ClassVar[Literal["none", "root", "oracle"]] = "root"

    def __init__(self, suspect: str | Classifier, false_alarms: float = 0.05, table: str | None = None) -> None:
        super().__init__(table)
        self.given(suspect=suspect)
        self.false_alarms = check_share("false_alarms", false_alarms)
        self._calibrated = False

    @abstractmethod
    def detector(self, classifier: Classifier) -> PerturbedQueries:
        """Make the detector of a suspect."""
        raise NotImplementedError

    def prepare(self) -> None:
        """Let the detector take from root images what its score needs."""

    def judged(self, batch: Batch) -> Tensor:
        """Say which root images of a batch set the threshold, bool ``[B]``."""
        return batch["valid"]  # type: ignore[no-any-return]

    def boundary(self, scores: Tensor) -> Tensor:
        """Give the threshold for scores of root images ``[N]``: the share of false alarms lies above it."""
        return scores.quantile(1 - self.false_alarms)

    def build(self) -> None:
        """Open the suspect and make the detector."""
        self.net = Frozen(self.detector(self.open_classifier()))

    def calibrate(self) -> None:
        """Set the threshold, once; the same in every process."""
        if self._calibrated:
            return
        detector: Any = self.net.module
        with torch.inference_mode(False), torch.no_grad():
            self.prepare()
            scores = [detector.judge(batch["image"])["score"][self.judged(batch)] for batch in self.passes("root")]
            detector.threshold.copy_(self.boundary(torch.cat(scores)))
        self._calibrated = True

    def evaluator(self) -> Evaluator:
        """Calibrate, then measure precision, recall, F1, AUROC."""
        self.calibrate()
        return super().evaluator()

    def on_predict_start(self) -> None:
        """Calibrate."""
        super().on_predict_start()
        self.calibrate()

    def numbers(self) -> dict[str, Any]:
        """Give the threshold."""
        return {"threshold": float(self.net.module.threshold)}  # type: ignore[arg-type]
