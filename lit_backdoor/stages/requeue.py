"""Slurm's requeue: what its signal saves is what a stage can resume exactly, the end of an epoch."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback

from lit_backdoor.signals import on_slurm
from lit_backdoor.stages.checkpoint import batches_into_epoch

__all__ = ["Requeue"]


class Requeue(Callback):
    """Save the last finished epoch where Lightning, on SIGUSR1 under Slurm, would save the middle of one.

    Lightning writes ``hpc_ckpt_N.ckpt`` and asks Slurm to queue the job again, which then resumes from that file. No
    stage resumes from the middle of an epoch exactly, so the file gets the contents of this run's last checkpoint of an
    epoch's end; before the first one, those of the start, which a run under Slurm saves for this.
    """

    def __init__(self) -> None:
        self._saving = False
        self._start: Path | None = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save the start, and note when Lightning answers the signal."""
        handler = signal.getsignal(signal.SIGUSR1) if on_slurm() else None
        if not callable(handler):
            return
        self._start = Path(trainer.default_root_dir) / "requeue.ckpt"
        trainer.save_checkpoint(self._start)

        def answer(number: int, frame: FrameType | None) -> None:
            self._saving = True
            try:
                handler(number, frame)
            finally:
                self._saving = False

        signal.signal(signal.SIGUSR1, answer)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Replace the contents of a checkpoint that is written on the signal."""
        if not (self._saving and batches_into_epoch(checkpoint)):
            return
        finished = next(each for each in self._candidates(trainer) if not batches_into_epoch(each))
        checkpoint.clear()
        checkpoint.update(finished)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Remove what was saved at the start."""
        if self._start is not None and trainer.is_global_zero:
            self._start.unlink(missing_ok=True)

    def _candidates(self, trainer: pl.Trainer) -> Iterator[dict[str, Any]]:
        """Load the checkpoints that this run wrote itself, the last one first."""
        for path in (getattr(trainer.checkpoint_callback, "best_model_path", ""), self._start):
            if path:
                yield torch.load(path, map_location="cpu", weights_only=True)
