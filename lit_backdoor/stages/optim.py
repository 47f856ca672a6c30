"""Learning-rate schedules, by name, over a run whose length the Trainer knows."""

from __future__ import annotations

import math
from typing import Any, Literal

import lightning.pytorch as pl
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ConstantLR, CosineAnnealingLR, LRScheduler, OneCycleLR

__all__ = ["Schedule", "make_schedule", "scheduled"]

Schedule = Literal["constant", "cosine", "one_cycle"]


def make_schedule(optimizer: Optimizer, name: Schedule, steps: int) -> LRScheduler:
    """Make a schedule of so many steps; the optimizer's learning rate is its peak.

    ``constant`` keeps it; ``cosine`` falls to 0; ``one_cycle`` (Smith and Topin 2017) rises for a quarter of the steps
    and falls, while a momentum goes the other way, between .95 and .85.
    """
    if name == "one_cycle":
        momentum = any(key in optimizer.defaults for key in ("momentum", "betas"))
        peaks = [float(group["lr"]) for group in optimizer.param_groups]
        total = max(5, steps)  # torch divides by zero where the rise is one step long
        return OneCycleLR(optimizer, peaks, total_steps=total, pct_start=0.25, cycle_momentum=momentum)
    if name == "cosine":
        return CosineAnnealingLR(optimizer, max(1, steps))
    return ConstantLR(optimizer, factor=1.0)


def scheduled(stage: pl.LightningModule, optimizer: Optimizer, name: Schedule) -> dict[str, Any]:
    """Put a schedule on an optimizer, in the form that ``configure_optimizers`` returns.

    Raises:
        ValueError: If the schedule needs the run's length and the run has none.
    """
    steps = stage.trainer.estimated_stepping_batches
    if name == "constant":
        steps = 1  # of no matter
    elif math.isinf(steps):
        raise ValueError(
            f"Expected a run of known length for schedule '{name}', got one without end. Set the Trainer's max_epochs "
            "or max_steps, or the stage's schedule to constant."
        )
    schedule = make_schedule(optimizer, name, int(steps))
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
