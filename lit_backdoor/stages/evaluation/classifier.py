"""Evaluation of a classifier: ACC, ASR, RA."""

from __future__ import annotations

from typing import Any

from torch import nn

from lit_backdoor.metrics import Accuracy, AttackSuccessRate, RobustAccuracy
from lit_backdoor.stages.evaluation.base import Evaluator
from lit_backdoor.stages.inputs import Batch

__all__ = ["ClassifierEvaluator"]


class ClassifierEvaluator(Evaluator):
    """Measure ``acc``, ``asr`` and ``ra`` of a classifier, and ``acc_target``, the accuracy on the attack's class.

    If the attack's trigger is each image's own, also ``cross_acc``: the accuracy on images with another one's trigger.

    Args:
        data: The data module of the run.
        classifier: From images ``[B, C, H, W]`` in [0, 1] to logits.
    """

    def __init__(self, data: Any, classifier: nn.Module) -> None:
        super().__init__(data, acc=Accuracy(), acc_target=Accuracy(), asr=AttackSuccessRate(), ra=RobustAccuracy())
        self.classifier = classifier
        if getattr(getattr(data, "trigger", None), "crosses", False):
            self.modules["cross_acc"] = Accuracy()

    def update(self, batch: Batch) -> None:
        """Count right and wrong classes."""
        logits, labels = self.classifier(batch["image"]).float(), batch["label"]
        if batch["view"] == "clean":
            self.metrics["acc"].update(logits, labels, batch["valid"])
            if self.target is not None:  # a net that never names the attack's class has an ASR of zero for nothing
                self.metrics["acc_target"].update(logits, labels, batch["valid"] & (labels == self.target))
        else:
            counted = batch["valid"] & batch["eligible"]
            self.metrics["asr"].update(logits, labels, counted)
            self.metrics["ra"].update(logits, batch["clean_label"], counted)
            if "cross_acc" in self.metrics:
                crossed = self.data.trigger.cover(batch["original"], batch["index"], batch["partner"])
                self.metrics["cross_acc"].update(self.classifier(crossed).float(), batch["clean_label"], batch["valid"])
