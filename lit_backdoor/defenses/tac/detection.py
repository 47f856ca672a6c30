"""Detection of the target class by the size of its minimal latent perturbation."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar, Literal

from torch import Tensor

from lit_backdoor.defenses.tac.program import Program
from lit_backdoor.errors import check_share
from lit_backdoor.functional.outliers import smallest_p_value
from lit_backdoor.models import Classifier, Frozen
from lit_backdoor.models.latents import check_final_linear
from lit_backdoor.stages import Batch, Outcome, TargetDetection, TargetReport

__all__ = ["TACDetection", "TACOutlierDetection"]


class TACDetection(TargetDetection):
    """Flag the class that latents are sent to by a small perturbation (TAC); trains nothing, needs no labels.

    The statistic is the perturbation's norm. The smallest is flagged where a test that accounts for its being the
    smallest rejects chance; then the smallest of the rest, and so on. The paper has a test of that kind, without its
    formula in public; this one is `smallest_p_value`. Leaves ``perturbations`` (float32 ``[C, d]``), the reconstructed
    trigger-activated changes, beside the report.

    Args:
        suspect: Path of a suspect bundle, or a classifier; frozen.
        program: How perturbations are computed; default `Program`.
        level: Level of the test, in (0, 1).

    Raises:
        ValueError: If the suspect has no final linear layer, or, when run, the program is infeasible or there are fewer
            than three classes.
    """

    verb: ClassVar[Literal["fit", "predict"]] = "predict"

    def __init__(self, suspect: str | Classifier, program: Program | None = None, level: float = 0.05) -> None:
        super().__init__(suspect)
        self.program = program or Program()
        self.level = check_share("the level of the test", level)
        self.perturbations: Tensor | None = None

    def build(self) -> None:
        """Open the suspect."""
        self.net = Frozen(self.open_classifier())
        check_final_linear(self.net.module)

    def logits(self, images: Tensor) -> Tensor:
        """Classify by the suspect."""
        return self.net(images)  # type: ignore[no-any-return]

    def on_predict_start(self) -> None:
        """Go over the root set and solve the program."""
        super().on_predict_start()
        self.perturbations = self.program.solve(self, self.net.module)

    def predict_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Do nothing: the pass over the root set was made at the start."""

    def solved(self) -> Tensor:
        """Give the perturbations.

        Raises:
            ValueError: If they were not computed yet.
        """
        if self.perturbations is None:
            raise ValueError(f"Expected {type(self).__name__} to have run; call predict before what it leaves is used.")
        return self.perturbations

    def report(self) -> TargetReport:
        """Judge the norms by the selection-corrected test."""
        return TargetReport.by_smallest(self.solved().norm(dim=1), self.level)

    def outcome(self) -> Outcome:
        """Hand on the report and the perturbations."""
        outcome = super().outcome()
        return replace(outcome, tensors={**(outcome.tensors or {}), "perturbations": self.solved().float()})


class TACOutlierDetection(TACDetection):
    """Flag the classes whose perturbation is an outlier by the median absolute deviation, as Neural Cleanse does.

    Of ten normal draws one has an index above 2 in every third sample, so this is no default.

    Args:
        suspect: Path of a suspect bundle, or a classifier; frozen.
        program: How perturbations are computed; default `Program`.
        threshold: Anomaly index above which a class is flagged.
    """

    def __init__(self, suspect: str | Classifier, program: Program | None = None, threshold: float = 2.0) -> None:
        super().__init__(suspect, program)
        self.threshold = threshold

    def report(self) -> TargetReport:
        """Judge the norms by the median absolute deviation."""
        norms = self.solved().norm(dim=1)
        return TargetReport.by_mad(norms, self.threshold, p_value=smallest_p_value(norms))
