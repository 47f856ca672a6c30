"""Evaluation of a detector of triggered inputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from lit_backdoor.metrics import InputDetectionScores
from lit_backdoor.stages.evaluation.base import Evaluator
from lit_backdoor.stages.inputs import Batch

__all__ = ["InputEvaluator"]


class InputEvaluator(Evaluator):
    """Measure ``precision``, ``recall``, ``f1`` and ``auroc`` of a detector on clean and on triggered test images.

    Args:
        data: The data module of the run.
        judge: From images to ``score`` (high is suspicious) and ``flagged`` (bool), ``[B]`` each.
    """

    def __init__(self, data: Any, judge: Callable[[Tensor], Mapping[str, Tensor]]) -> None:
        super().__init__(data, detection=InputDetectionScores())
        self.judge = judge

    def update(self, batch: Batch) -> None:
        """Judge clean or triggered inputs."""
        found = self.judge(batch["image"])
        triggered = torch.full_like(found["flagged"], batch["view"] == "triggered")
        self.metrics["detection"].update(found["score"], found["flagged"], triggered, batch["valid"])

    def compute(self) -> dict[str, Tensor]:
        """Give the four scores."""
        return dict(super().compute()["detection"])
