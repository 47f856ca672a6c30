"""The callback that writes a stage's bundle when its run is complete."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback

from lit_backdoor.disk import check_bundle_folder
from lit_backdoor.stages.base import Stage

__all__ = ["BundleWriter"]


class BundleWriter(Callback):
    """Write the stage's bundle at the end of a complete ``fit`` or ``predict``; an interrupted run writes none.

    A run that ``max_steps``, ``max_time`` or early stopping ended is complete; one that a signal or an error stopped is
    not.

    Args:
        path: Folder of the bundle; None puts ``bundle`` under the Trainer's ``default_root_dir``.
        key: Hash of the settings, kept in the bundle.

    Raises:
        ValueError: If ``path`` is empty; later, if its place holds what is no bundle, or a run trained nothing or ended
            before the phases of its stage did.
    """

    def __init__(self, path: str | None = None, key: str | None = None) -> None:
        if path == "":
            raise ValueError("Expected --out to name a folder, got an empty text.")
        self.path = path
        self.key = key

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Check that the bundle may be written, before anything is trained."""
        if isinstance(pl_module, Stage) and pl_module.verb == stage and not getattr(trainer, "fast_dev_run", False):
            check_bundle_folder(self._folder(trainer))

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write what a trained stage has made. Signals and errors leave Lightning's loop before it comes here."""
        if isinstance(pl_module, Stage) and pl_module.verb == "fit":
            self._write(trainer, pl_module)

    def on_predict_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write what a predicting stage has made."""
        if isinstance(pl_module, Stage) and pl_module.verb == "predict":
            self._write(trainer, pl_module)

    def _write(self, trainer: pl.Trainer, stage: Stage) -> None:
        if stage.kind is not None and not getattr(trainer, "fast_dev_run", False):
            if stage.verb == "fit":
                _check_whole(trainer, stage)
            stage.export(self._folder(trainer), self.key)

    def _folder(self, trainer: pl.Trainer) -> Path:
        return Path(self.path or Path(trainer.default_root_dir) / "bundle")


def _check_whole(trainer: pl.Trainer, stage: Stage) -> None:
    """Refuse a run that trained nothing, or not all of the epochs that its stage needs."""
    loop: Any = trainer.fit_loop
    begun, wanted = loop.epoch_progress.current.processed, stage.planned_epochs
    if not begun and not trainer.global_step:
        raise ValueError(
            f"Expected a run that trains {type(stage).__name__}, got one that ended before its first step. Give it "
            "more --trainer.max_time, or take out the callback that stopped it."
        )
    whole = begun if loop.epoch_loop.batch_progress.is_last_batch else begun - 1
    if wanted is not None and whole < wanted:
        raise ValueError(
            f"Expected {wanted} epochs for {type(stage).__name__}, the sum of its phases, got a run that ended after "
            f"{whole}: no bundle is written. Take out --trainer.max_time and early stopping."
        )
