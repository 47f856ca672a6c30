"""Writing of a stage's bundle when its run is complete."""

from __future__ import annotations

from pathlib import Path

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback

from lit_backdoor.stages.base import Stage

__all__ = ["BundleWriter"]


class BundleWriter(Callback):
    """Write the stage's bundle at the end of a complete ``fit`` or ``predict``; an interrupted run leaves none.

    Args:
        path: Folder of the bundle; None puts ``bundle`` under the Trainer's ``default_root_dir``.
        key: Hash of the settings, kept in the bundle.
    """

    def __init__(self, path: str | None = None, key: str | None = None) -> None:
        self.path = path
        self.key = key

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write what a trained stage hands on."""
        complete = trainer.max_epochs in (None, -1) or trainer.current_epoch >= (trainer.max_epochs or 0)
        if isinstance(pl_module, Stage) and pl_module.verb == "fit" and complete and not trainer.interrupted:
            self._write(trainer, pl_module)

    def on_predict_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write what a predicting stage hands on."""
        if isinstance(pl_module, Stage) and pl_module.verb == "predict":
            self._write(trainer, pl_module)

    def _write(self, trainer: pl.Trainer, stage: Stage) -> None:
        if not getattr(trainer, "fast_dev_run", False):
            stage.export(self.path or Path(trainer.default_root_dir) / "bundle", self.key)
