"""The end of an audit's budget: training stops at a batch."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

from lightning.pytorch.callbacks import Callback

__all__ = ["OutOfTimeError", "TimeLimit", "time_limit"]

_end: ContextVar[float] = ContextVar("end", default=float("inf"))


class OutOfTimeError(RuntimeError):
    """A detector took longer than what was left of the budget."""


@contextlib.contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Let training under `TimeLimit` end within so many seconds."""
    token = _end.set(time.monotonic() + seconds)
    try:
        yield
    finally:
        _end.reset(token)


class TimeLimit(Callback):
    """Stop training once the time of `time_limit` is over; what was trained is given up.

    It has no arguments, so that a result is found again whatever the limit was.
    """

    def on_train_batch_end(self, *args: Any, **kwargs: Any) -> None:
        """Look at the clock.

        Raises:
            OutOfTimeError: If the time is over.
        """
        if time.monotonic() > _end.get():
            raise OutOfTimeError("It took longer than what was left of the budget.")
