"""The test of a bundle: every number of a result comes from here, in one process, never from the run that trained."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from torch import nn

from lit_backdoor.bundle import Bundle, open_bundle
from lit_backdoor.models import Classifier, Frozen
from lit_backdoor.stages.base import Stage
from lit_backdoor.stages.evaluation import (
    DecoderEvaluator,
    Evaluator,
    GeneratorEvaluator,
    InputEvaluator,
    PerturbationEvaluator,
    ReconstructionEvaluator,
    SelectionEvaluator,
    StampEvaluator,
    TargetEvaluator,
    TriggerEvaluator,
)
from lit_backdoor.stages.inputs import Takes
from lit_backdoor.stages.target_detection import read_report
from lit_backdoor.triggers import RegionalTrigger

__all__ = ["TESTED", "Evaluation", "input_of"]

TESTED = ("suspect", "attack", "generator", "selection", "trigger", "detector", "targets", "decoder")


class Evaluation(Stage):
    """Test a bundle by the evaluator of its kind; ``predict`` gives a suspect's logits on clean test images.

    Args:
        bundle: Path of a bundle, or a classifier.

    Raises:
        ValueError: When run, if a bundle of its kind has no test, or the suspect that it was made from is gone.
    """

    views: ClassVar[tuple[str, ...]] = ("clean",)
    verb: ClassVar[Literal["fit", "predict"]] = "predict"
    kind: ClassVar[str | None] = None
    takes: ClassVar[Takes] = {**Stage.takes, "bundle": TESTED}

    def __init__(self, bundle: str | Classifier) -> None:
        super().__init__()
        self.given(bundle=bundle)

    def build(self) -> None:
        """Open the bundle, and the suspect that it was made from where its test needs that."""
        self.source = self.bundle("bundle")
        self.held: Frozen[Any] | None = None
        self.suspect: Frozen[Classifier] | None = None
        if self.source is None or self.source.kind == "suspect":
            self.held = Frozen(self.open_classifier("bundle"))
        elif self.source.info["model"] is not None or self.source.kind in ("generator", "trigger", "decoder"):
            self.held = Frozen(self.open("bundle"))
        if self.source is not None and self._needs_suspect(self.source):
            self.given(suspect=str(input_of(self.source, "suspect").path))
            self.suspect = Frozen(self.open_classifier())

    def _needs_suspect(self, source: Bundle) -> bool:
        if source.kind == "targets":
            return self.held is not None or "perturbations" in source.tensors()
        return source.kind in ("generator", "trigger")

    def result(self) -> nn.Module:
        """Give the suspect."""
        if self.held is None or not isinstance(self.held.module, Classifier):
            return super().result()
        return self.held.module

    def evaluator(self) -> Evaluator:
        """Make the evaluator of the bundle's kind."""
        data, source = self.attached_data, self.source
        held: Any = None if self.held is None else self.held.module
        suspect: Any = None if self.suspect is None else self.suspect.module
        if source is None or source.kind == "suspect":
            return super().evaluator()
        if source.kind == "selection":
            return SelectionEvaluator(data, source.tensors()["indices"])
        if source.kind == "detector":
            return InputEvaluator(data, held.judge)
        if source.kind == "decoder":
            return DecoderEvaluator(data, held)
        if source.kind == "targets":
            flagged, top = read_report(source).flagged, source.numbers.get("top_class")
            perturbations = source.tensors().get("perturbations")
            if perturbations is not None:
                return PerturbationEvaluator(data, flagged, top, suspect, perturbations)
            if isinstance(held, RegionalTrigger) and top is not None:
                return ReconstructionEvaluator(data, flagged, top, suspect, held)
            return TargetEvaluator(data, flagged, top, suspect, held)
        if source.kind == "attack":
            return StampEvaluator(data)
        if source.kind == "generator":
            return GeneratorEvaluator(data, suspect, held)
        return TriggerEvaluator(data, suspect, held, source.numbers.get("target_class"))


def input_of(bundle: Bundle, name: str) -> Bundle:
    """Open a bundle that another one was made from.

    Raises:
        ValueError: If it is not there any more, or is another one by now.
    """
    noted = bundle.info["inputs"].get(name)
    if noted is None:
        raise ValueError(f"The bundle {bundle.path} does not say from which {name} it was made.")
    source = open_bundle(bundle.path / noted["path"])
    if source.hash != noted["hash"]:
        raise ValueError(f"The {name} at {source.path} is not the one that {bundle.path} was made from. Make it anew.")
    return source
