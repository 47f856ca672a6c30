"""Evaluation of a selection of training rows against the attack's plan."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lit_backdoor.metrics import selection_scores
from lit_backdoor.stages.evaluation.base import Evaluator
from lit_backdoor.triggers import Role

__all__ = ["SelectionEvaluator"]


class SelectionEvaluator(Evaluator):
    """Measure precision, recall and F1 of a selection of poisoned rows, as ``selection_…``; none without an attack.

    Args:
        data: The data module of the run.
        indices: The selected rows of the source's train part, int64.
    """

    def __init__(self, data: Any, indices: Tensor) -> None:
        super().__init__(data)
        self.indices = indices

    def compute(self) -> dict[str, Tensor]:
        """Compare with the plan; test images play no part."""
        if self.attack is None:
            return {}
        questioned = self.data.get_view("questioned")
        found = selection_scores(torch.isin(questioned.index, self.indices), questioned.role == Role.POISON)
        return {f"selection_{name}": value for name, value in found.items()}
