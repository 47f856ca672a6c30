"""Detection of the target class by the size of its minimal latent perturbation."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import ClassVar, Literal

import torch
from torch import Tensor

from lit_backdoor.defenses.tac.program import Program, root_latents
from lit_backdoor.errors import check_share, settings
from lit_backdoor.functional.outliers import smallest_p_value
from lit_backdoor.models import Classifier, Frozen
from lit_backdoor.models.latents import check_final_linear
from lit_backdoor.stages import Batch, Outcome, TargetDetection, TargetReport

__all__ = ["TACDetection", "TACOutlierDetection"]


class TACDetection(TargetDetection):
    """Flag the class that latents are sent to by a small perturbation (TAC); trains nothing, needs no labels.

    The statistic is a perturbation's norm. The smallest is flagged where a test that accounts for its being the
    smallest rejects chance; then the smallest of the rest, and so on. The paper has a test of that kind, without its
    formula in public; this one is `smallest_p_value`. Exports ``perturbations`` (float32 ``[C, d]``), the reconstructed
    trigger-activated changes, beside the report.

    Unlike in the paper the norms are of another program than the perturbations: the maximum over images, which hangs
    on a few of them, gives the better changes, and a quantile the norms that can be compared between classes. Classes
    that images are sent to as they are, whose norm is zero, are left out.

    Args:
        suspect: Path of a suspect bundle, or a classifier; frozen.
        program: How perturbations are computed; default `Program`.
        judged: How the perturbations are computed whose norms are judged; default a program with the slack of
            ``program`` and a quantile of 1 - .5 / C, which leaves half of one of C classes of equal size behind. Paper:
            the same as ``program``.
        level: Level of the test, in (0, 1).

    Raises:
        ValueError: If the suspect has no final linear layer, or, when run, the program is infeasible or there are fewer
            than three classes.
    """

    views: ClassVar[tuple[str, ...]] = ()
    verb: ClassVar[Literal["fit", "predict"]] = "predict"

    def __init__(
        self,
        suspect: str | Classifier,
        program: Program | None = None,
        judged: Program | None = None,
        level: float = 0.05,
    ) -> None:
        super().__init__(suspect)
        self.program = settings("program", program, Program) or Program()
        self.judged = settings("judged", judged, Program)
        self.level = check_share("the level of the test", level)
        self._found: tuple[Tensor, Tensor] | None = None  # perturbations, and the norms to judge

    def build(self) -> None:
        """Open the suspect."""
        self.net = Frozen(self.open_classifier())
        check_final_linear(self.net.module)
        if self.net.module.num_classes < 3:
            raise ValueError(
                f"Expected a suspect with at least three classes for {type(self).__name__}, which looks for one that "
                f"stands out, got {self.net.module.num_classes}. Give defenses their target as a number."
            )

    def predict_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Go over the root set once and solve both programs."""
        latents = root_latents(self, self.net.module)
        perturbations = self.program.solve(self.net.module, latents)
        judged = self.judged or Program(quantile=1 - 0.5 / self.net.module.num_classes, slack=self.program.slack)
        norms = judged.solve(self.net.module, latents).norm(dim=1)
        if there := (norms == 0).nonzero().flatten().tolist():
            warnings.warn(
                f"The suspect gives nearly all root images to class {there[0]} as they are, so the smallest change is "
                "none at all, which says nothing about a backdoor: it is left out. Check its accuracy, and that the "
                "root set has all classes.",
                stacklevel=2,
            )
        self._found = perturbations, self.only_judged(norms.masked_fill(norms == 0, torch.inf))

    def found(self) -> tuple[Tensor, Tensor]:
        """Give the perturbations ``[C, d]`` and the norms to judge ``[C]``, float64; infinite where they are zero.

        Raises:
            ValueError: If they were not computed yet.
        """
        if self._found is None:
            raise ValueError(f"Expected {type(self).__name__} to have run; call predict before its report is read.")
        return self._found

    def report(self) -> TargetReport:
        """Judge the norms by the selection-corrected test; fewer than three cannot be judged, so none is flagged."""
        norms = self.found()[1]
        if int(norms.isfinite().sum()) < 3:
            return TargetReport(norms, torch.full_like(norms, -torch.inf), ())
        return self.judge(norms)

    def judge(self, norms: Tensor) -> TargetReport:
        """Flag the smallest of the norms, if any."""
        return TargetReport.by_smallest(norms, self.level)

    def outcome(self) -> Outcome:
        """Export the report and the perturbations."""
        outcome = super().outcome()
        return replace(outcome, tensors={**(outcome.tensors or {}), "perturbations": self.found()[0].float()})


class TACOutlierDetection(TACDetection):
    """Flag the classes whose perturbation is an outlier by the median absolute deviation, as Neural Cleanse does.

    This is not the default: among ten draws from a normal distribution, one has an index above 2 in every third sample.

    Args:
        suspect: Path of a suspect bundle, or a classifier; frozen.
        program: How perturbations are computed; default `Program`.
        judged: How the perturbations are computed whose norms are judged; default as in `TACDetection`.
        threshold: Anomaly index above which a class is flagged.
    """

    def __init__(
        self,
        suspect: str | Classifier,
        program: Program | None = None,
        judged: Program | None = None,
        threshold: float = 2.0,
    ) -> None:
        super().__init__(suspect, program, judged)
        self.threshold = threshold

    def judge(self, norms: Tensor) -> TargetReport:
        """Flag the norms that are outliers."""
        return TargetReport.by_mad(norms, self.threshold, p_value=smallest_p_value(norms))
