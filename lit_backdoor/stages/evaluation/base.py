"""The base of every evaluator: metrics over the clean and the triggered view, read at the end of a pass."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn
from torchmetrics import Metric

from lit_backdoor.stages.inputs import Batch

__all__ = ["Evaluator"]


class Evaluator:
    """Measure one kind of result; this one measures nothing.

    A subclass makes its metrics, updates them in `update`, and adds in `compute` what no batch is needed for. An
    evaluator is made anew for every pass.

    Args:
        data: The data module of the run; None for plain loaders.
        **metrics: The metrics, by the name that they are logged under.
    """

    def __init__(self, data: Any = None, **metrics: Metric) -> None:
        self.data = data
        self.attack = getattr(data, "attack", None)
        self.modules = nn.ModuleDict(metrics)

    @property
    def metrics(self) -> Mapping[str, Metric]:
        """The metrics by name."""
        return cast("Mapping[str, Metric]", self.modules)

    @property
    def target(self) -> int | None:
        """The class that the attack leads to; None where there is no attack or no single class."""
        return getattr(self.attack, "single_target", None)

    def to(self, device: torch.device) -> Evaluator:
        """Move the metrics."""
        self.modules.to(device)
        return self

    def update(self, batch: Batch) -> None:
        """Take in one batch of the ``clean`` or ``triggered`` view."""

    def compute(self) -> dict[str, Tensor]:
        """Give the numbers, over all processes; metrics that no batch concerned are left out."""
        return {name: metric.compute() for name, metric in self.metrics.items() if metric.update_called}
