"""The test that fits each kind of bundle."""

from __future__ import annotations

from collections.abc import Callable

from lit_backdoor.bundle import open_bundle
from lit_backdoor.stages.base import Stage
from lit_backdoor.stages.evaluation import (
    DetectorEvaluation,
    Evaluation,
    GeneratorEvaluation,
    SelectionEvaluation,
    TriggerEvaluation,
)
from lit_backdoor.stages.target_evaluation import PerturbationEvaluation, TargetEvaluation

__all__ = ["TESTED", "evaluation_of"]


def evaluation_of(path: str) -> Stage:
    """Make the evaluation that fits a bundle's kind.

    Raises:
        ValueError: If there is nothing to test about that kind.
    """
    bundle = open_bundle(path)
    if bundle.kind not in TESTED:
        raise ValueError(f"There is no test of a bundle of kind '{bundle.kind}'. Kinds with one: {', '.join(TESTED)}.")
    return TESTED[bundle.kind](path)


def _evaluation_of_targets(path: str) -> Stage:
    with_perturbations = "perturbations" in open_bundle(path, "targets").tensors()
    return PerturbationEvaluation(path) if with_perturbations else TargetEvaluation(path)


TESTED: dict[str, Callable[[str], Stage]] = {
    "suspect": Evaluation,
    "generator": GeneratorEvaluation,
    "selection": SelectionEvaluation,
    "trigger": TriggerEvaluation,
    "detector": DetectorEvaluation,
    "targets": _evaluation_of_targets,
}
