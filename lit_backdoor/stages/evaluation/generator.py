"""Evaluation of a generator of triggered images: DoF."""

from __future__ import annotations

from typing import Any

from torch import nn

from lit_backdoor.metrics import DegreeOfFeatureCollisions
from lit_backdoor.stages.evaluation.base import Evaluator
from lit_backdoor.stages.inputs import Batch

__all__ = ["GeneratorEvaluator"]


class GeneratorEvaluator(Evaluator):
    """Measure ``dof``: how alike a suspect's logits are on triggered and on generated images (ATClean, Eq. 6).

    It is over all test rows, and left out where rows carry the trigger themselves: no image is there without it.

    Args:
        data: The data module of the run.
        suspect: The classifier that the generator was trained on.
        generator: From images to images, both in [0, 1].
    """

    def __init__(self, data: Any, suspect: nn.Module, generator: nn.Module) -> None:
        super().__init__(data, dof=DegreeOfFeatureCollisions())
        self.suspect = suspect
        self.generator = generator

    def update(self, batch: Batch) -> None:
        """Compare logits on each row triggered and on what is generated from it."""
        if "original" in batch:  # neither in the clean view nor under a trigger that is not stamped
            triggered, generated = self.suspect(batch["image"]), self.suspect(self.generator(batch["original"]))
            self.metrics["dof"].update(triggered.float(), generated.float(), batch["valid"])
