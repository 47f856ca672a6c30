"""Learning-rate schedules, by name, over a run whose length the Trainer knows."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

import lightning.pytorch as pl
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

__all__ = ["Schedule", "schedule_factor", "scheduled"]

Schedule = Literal["constant", "cosine", "one_cycle"]


def schedule_factor(name: Schedule, total: int, warmup: float = 0.25) -> Callable[[int], float]:
    """Give the factor on the learning rate as a function of the step.

    ``constant`` is 1; ``cosine`` falls from 1 to 0; ``one_cycle`` rises from .04 to 1 over the ``warmup`` share of the
    steps and falls to nearly 0, both along a cosine (Smith and Topin 2017).
    """

    def factor(step: int) -> float:
        if name == "constant":
            return 1.0
        rise = warmup * total if name == "one_cycle" else 0.0
        if step < rise:
            return 0.04 + 0.96 * 0.5 * (1 - math.cos(math.pi * step / rise))
        return 1e-4 + (1 - 1e-4) * 0.5 * (1 + math.cos(math.pi * min(1.0, (step - rise) / max(1.0, total - rise))))

    return factor


def scheduled(stage: pl.LightningModule, optimizer: Optimizer, name: Schedule) -> dict[str, Any]:
    """Put a schedule on an optimizer, in the form that ``configure_optimizers`` returns."""
    total = int(stage.trainer.estimated_stepping_batches)
    return {
        "optimizer": optimizer,
        "lr_scheduler": {"scheduler": LambdaLR(optimizer, schedule_factor(name, total)), "interval": "step"},
    }
