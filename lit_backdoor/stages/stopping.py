"""Stopping of a run at a batch where a signal asked for it, in all of its processes at the same one."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback

from lit_backdoor import signals
from lit_backdoor.signals import Stopped

__all__ = ["StopAtBatch"]


class StopAtBatch(Callback):
    """Raise `Stopped` after the training batch in which a signal came; the last epoch's checkpoint is kept.

    Several processes ask each other after each batch, since a signal may reach one of them only.
    """

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Let signals wait for the end of a batch."""
        signals.hold()

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *batch: Any) -> None:
        """Stop if this process, or another one of the run, was asked to."""
        number = signals.received()
        if trainer.world_size > 1:
            if trainer.strategy.reduce_boolean_decision(number is not None, all=False):
                raise Stopped(number or 15)
        elif number is not None:
            raise Stopped(number)

    def on_validation_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *batch: Any) -> None:
        """Stop a run of one process within a long validation as well."""
        if trainer.world_size == 1 and (number := signals.received()) is not None:
            raise Stopped(number)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Let signals end the command at once again; one that came after the last batch still counts."""
        signals.release()
        if trainer.world_size == 1 and (number := signals.received()) is not None:
            raise Stopped(number)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Note the checkpoint that the run can go on from."""
        signals.release()
        if isinstance(exception, Stopped) and trainer.checkpoint_callback is not None:
            exception.checkpoint = getattr(trainer.checkpoint_callback, "best_model_path", "") or None
