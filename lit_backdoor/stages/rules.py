"""Rules that every stage keeps: of the Trainer, of batches, losses and checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor
from torch.optim import Optimizer

from lit_backdoor import __version__
from lit_backdoor.errors import DivergedError, check_rate

if TYPE_CHECKING:
    from lit_backdoor.stages.base import Stage

__all__ = [
    "check_batch",
    "check_finite",
    "check_length",
    "check_loss",
    "check_mark",
    "check_rates",
    "check_ready",
    "check_settings",
    "check_strategy",
    "fill_epochs",
    "mark",
    "seed_step",
]

_UNSET = (None, -1, 1000)  # what Lightning makes of max_epochs that was not given


def check_settings(given: Callable[[str], Any]) -> None:
    """Check the settings that hold for every run.

    Args:
        given: Gives a Trainer's setting by its name, or None.

    Raises:
        ValueError: If images would not be float32, or the data module's sampling would be replaced.
    """
    precision = str(given("precision"))
    if precision.endswith("-true") and precision not in ("32-true", "64-true"):
        raise ValueError(
            f"Expected --trainer.precision 32-true, bf16-mixed or 16-mixed, got {precision}: images and distances "
            "stay in float32."
        )
    if given("overfit_batches"):
        raise ValueError(
            "Expected no --trainer.overfit_batches, which would replace the data module's own sampling. For a "
            "short run set --trainer.limit_train_batches, or fewer rows in data.split."
        )


def check_length(given: Callable[[str], Any]) -> None:
    """Check the settings that say how long a stage is trained.

    Args:
        given: Gives a Trainer's setting by its name, or None.

    Raises:
        ValueError: If nothing would be trained, which would export weights as they began.
    """
    for name in ("max_epochs", "max_steps", "limit_train_batches", "accumulate_grad_batches"):
        if given(name) == 0:
            raise ValueError(f"Expected --trainer.{name} to be at least 1, got 0: nothing would be trained.")


def check_rates(optimizer: Optimizer) -> None:
    """Check the learning rates of an optimizer, before it makes a step.

    Raises:
        ValueError: If one is negative or not finite.
    """
    for group in optimizer.param_groups:
        if group.get("lr") is not None:  # some optimizers find their own
            check_rate(f"the learning rate of {type(optimizer).__name__}", float(group["lr"]))


def check_strategy(name: str, strategy: Any) -> None:
    """Check that processes do not wait for gradients of nets that rest while others are trained.

    Raises:
        ValueError: If the strategy is plain DDP.
    """
    if isinstance(strategy, DDPStrategy) and not strategy._ddp_kwargs.get("find_unused_parameters"):
        raise ValueError(
            f"{name} trains its nets in turn, so plain DDP would wait for gradients that do not come. Expected "
            "--trainer.strategy ddp_find_unused_parameters_true."
        )


def fill_epochs(trainer: pl.Trainer, name: str, planned: int) -> None:
    """Set a Trainer's ``max_epochs`` to what a stage has planned, unless it was given.

    Raises:
        ValueError: If another number was given, or ``max_steps``.
    """
    if getattr(trainer, "fast_dev_run", False):
        return
    if trainer.max_steps not in (-1, None):
        raise ValueError(f"Expected no max_steps for {name}, whose phases are epochs, got {trainer.max_steps}.")
    if trainer.max_epochs in _UNSET:
        trainer.fit_loop.max_epochs = planned
    if trainer.max_epochs != planned:
        raise ValueError(
            f"Expected {planned} epochs for {name}, as its phases need, got max_epochs={trainer.max_epochs}. Leave "
            f"max_epochs out, set --trainer.max_epochs {planned}, or change the stage's rounds and epochs."
        )


def check_batch(name: str, batch: Any) -> None:
    """Check that a batch is of the kind that this package's data modules give.

    Raises:
        ValueError: If it is not.
    """
    if not isinstance(batch, Mapping) or "image" not in batch:
        raise ValueError(
            f"{name} needs batches with 'image', 'label' and 'index', got a {type(batch).__name__}. Give the Trainer "
            "datamodule= a BackdoorDataModule; one of your own goes in as BackdoorDataModule(DataModuleSource(yours))."
        )


def seed_step(place: tuple[int, ...], device: torch.device) -> None:
    """Seed the generators that a step draws from, as `torch.manual_seed` does, which takes .9 ms to do it.

    Args:
        place: What the draws are a function of.
        device: The device of the step.
    """
    words = np.random.SeedSequence(place).generate_state(2)
    seed = (int(words[0]) << 31) ^ int(words[1])
    torch.default_generator.manual_seed(seed)
    if device.type != "cpu":
        torch.get_device_module(device).manual_seed(seed)


def check_loss(stage: Stage, bad: tuple[int, float] | None) -> None:
    """Check that the losses of all processes were finite.

    Args:
        stage: The stage that is trained.
        bad: Step and value of this process's first loss that was not.

    Raises:
        DivergedError: With epoch and step.
    """
    trainer, anywhere = stage.attached_trainer, bad is not None
    if trainer is not None and trainer.world_size > 1:  # a checkpoint is written by the first, of weights of all
        count = torch.tensor(float(anywhere), device=stage.device)
        anywhere = bool(trainer.strategy.reduce(count, reduce_op="sum"))
    if anywhere:
        step, value = bad or (stage.global_step, "infinite or NaN in another process")
        raise DivergedError(
            f"The training loss of {type(stage).__name__} became {value} in epoch {stage.current_epoch}, step {step}. "
            "The checkpoint of the last finished epoch is kept. Lower the learning rate, or use --trainer.precision "
            "32-true."
        )


def check_finite(stage: Stage, values: Tensor, what: str) -> None:
    """Check what a net gives at the start of an epoch, such as its activations.

    Raises:
        DivergedError: With epoch and step.
    """
    if not values.isfinite().all():
        raise DivergedError(
            f"The {what} of {type(stage).__name__} are not finite at the start of epoch {stage.current_epoch}, step "
            f"{stage.global_step}. The checkpoint of the last finished epoch is kept. Lower the learning rate or "
            "the loss's weight."
        )


def check_ready(name: str, trained: bool) -> None:
    """Check that weights were trained or loaded before they are used.

    Raises:
        ValueError: If they were not.
    """
    if not trained:
        raise ValueError(
            f"{name} has no trained weights here. Give --ckpt_path a checkpoint of this stage, or evaluate what it "
            "exported: lit-backdoor test --bundle DIR --data …"
        )


def mark(stage: Stage) -> dict[str, Any]:
    """Say which stage writes a checkpoint."""
    return {"stage": _name(stage), "version": __version__}


def check_mark(stage: Stage, checkpoint: Mapping[str, Any]) -> None:
    """Check that a checkpoint was written by the same stage.

    Raises:
        ValueError: If another stage wrote it.
    """
    ours = checkpoint.get("lit_backdoor")
    wrote = ours.get("stage") if isinstance(ours, dict) else "a program that is not lit_backdoor"
    if wrote != _name(stage):
        raise ValueError(
            f"Expected a checkpoint of {_name(stage)}, got one of {wrote}. --ckpt_path resumes the same stage; give "
            "results to another one as a bundle, for example --model.suspect DIR."
        )


def _name(stage: Stage) -> str:
    return f"{type(stage).__module__}.{type(stage).__qualname__}"
