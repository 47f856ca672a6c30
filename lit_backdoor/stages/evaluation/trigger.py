"""Evaluation of a trigger that an inversion found: FD, and whether the target is right."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lit_backdoor.metrics import FeatureDistance
from lit_backdoor.models import Classifier
from lit_backdoor.stages.evaluation.base import Evaluator
from lit_backdoor.stages.inputs import Batch
from lit_backdoor.triggers import stamped_by

__all__ = ["TriggerEvaluator"]


class TriggerEvaluator(Evaluator):
    """Measure ``feature_distance`` (FD) of a recovered trigger to the attack's, as a suspect sees both.

    FD is over the test images that count in ASR; it is left out where rows carry the trigger themselves.
    ``target_found`` says whether the class that the inversion names is the attack's, 1 or 0; its mean over runs is DSR.
    It is left out where no single class is the attack's, or none is named.

    Args:
        data: The data module of the run.
        suspect: The classifier that the trigger was inverted from.
        trigger: A trigger or a generator.
        named: The class that the inversion names; None for none.
    """

    def __init__(self, data: Any, suspect: Classifier, trigger: nn.Module, named: int | None = None) -> None:
        super().__init__(data, feature_distance=FeatureDistance())
        self.suspect = suspect
        self.trigger = trigger
        self.named = named

    def update(self, batch: Batch) -> None:
        """Compare features (S_a) of rows that are truly triggered with those under the recovered trigger."""
        if "original" in batch:  # neither in the clean view nor under a trigger that is not stamped
            recovered = self.suspect.features(stamped_by(self.trigger, batch["original"], batch["index"])).float()
            triggered = self.suspect.features(batch["image"]).float()
            self.metrics["feature_distance"].update(recovered, triggered, batch["valid"] & batch["eligible"])

    def compute(self) -> dict[str, Tensor]:
        """Compare the named class with the attack's, too."""
        found = super().compute()
        if self.named is not None and self.target is not None:
            found["target_found"] = torch.tensor(float(self.named == self.target))
        return found
