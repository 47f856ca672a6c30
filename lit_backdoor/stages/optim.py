"""Optimizers and learning-rate schedules that stages share; schedules run over a length that the Trainer knows."""

from __future__ import annotations

import math
from typing import Any, Literal

import lightning.pytorch as pl
from torch.optim import SGD, Adam, Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler, OneCycleLR

__all__ = ["Schedule", "adam", "adam_for_generators", "make_schedule", "scheduled", "sgd", "sgd_from_scratch"]

Schedule = Literal["constant", "cosine", "one_cycle"]


def adam(parameters: Any) -> Optimizer:
    """Make Adam for fine-tuning, at 1e-4."""
    return Adam(parameters, lr=1e-4)


def adam_for_generators(parameters: Any) -> Optimizer:
    """Make Adam for generators, at 1e-3."""
    return Adam(parameters, lr=1e-3)


def sgd(parameters: Any) -> Optimizer:
    """Make SGD for fine-tuning: learning rate .01, momentum .9, weight decay 5e-4 (BackdoorBench's default)."""
    return SGD(parameters, lr=0.01, momentum=0.9, weight_decay=5e-4)


def sgd_from_scratch(parameters: Any) -> Optimizer:
    """Make SGD for training from scratch: Nesterov .9, learning rate .1, weight decay 5e-4."""
    return SGD(parameters, lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4)


def make_schedule(optimizer: Optimizer, name: Literal["cosine", "one_cycle"], steps: int) -> LRScheduler:
    """Make a schedule of so many steps; the optimizer's learning rate is its peak.

    ``cosine`` falls to 0; ``one_cycle`` (Smith and Topin 2017) rises for a quarter of the steps and falls, while a
    momentum goes the other way, between .95 and .85.
    """
    if name == "one_cycle":
        momentum = any(key in optimizer.defaults for key in ("momentum", "betas"))
        peaks = [float(group["lr"]) for group in optimizer.param_groups]
        total = max(5, steps)  # torch divides by zero where the rise is one step long
        return OneCycleLR(optimizer, peaks, total_steps=total, pct_start=0.25, cycle_momentum=momentum)
    return CosineAnnealingLR(optimizer, max(1, steps))


def scheduled(stage: pl.LightningModule, optimizer: Optimizer, name: Schedule) -> Any:
    """Put a schedule on an optimizer, in the form that ``configure_optimizers`` returns; ``constant`` needs none.

    Raises:
        ValueError: If the schedule needs the run's length and the run has none.
    """
    if name == "constant":
        return optimizer
    steps = stage.trainer.estimated_stepping_batches
    if math.isinf(steps):
        raise ValueError(
            f"Expected a run of known length for schedule '{name}', got one without end. Set the Trainer's max_epochs "
            "or max_steps, or the stage's schedule to constant."
        )
    return {
        "optimizer": optimizer,
        "lr_scheduler": {"scheduler": make_schedule(optimizer, name, int(steps)), "interval": "step"},
    }
