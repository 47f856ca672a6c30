"""What no stage can work with in a Trainer, whether it is there already or only described."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["check_length", "check_settings"]


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
