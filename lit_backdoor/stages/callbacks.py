"""Callbacks for Lightning modules that are not ours."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor

from lit_backdoor.data.datamodule import BackdoorDataModule
from lit_backdoor.data.foreign import Normalization
from lit_backdoor.data.wrap import WrappedDataModule, wrap
from lit_backdoor.triggers.base import Attack

__all__ = ["AttackSuccessCallback"]


class AttackSuccessCallback(pl.Callback):
    """Logs ``val/asr`` and ``val/ra`` of any module after each validation, from a pass of its own.

    ASR is the share of the eligible triggered images that get the attack's label, RA the share that keep their true
    one; NaN where none is eligible. The pass goes through the module's ``forward``, over all evaluation rows (or the
    batches of ``limit_val_batches``, where that is a number of them), exact on any number of processes. No loader is
    added and no metric of the module is renamed.

    Args:
        attack: Needed where the data module is neither wrapped nor ours.
        datamodule: Whose evaluation rows are stamped; default the Trainer's.
        mean: Mean that the module's images are normalized with, where the data module does not know it (it is ours, or
            not wrapped); None where the module takes [0, 1].
        std: Deviation likewise.
        every_n_epochs: Epochs from one pass to the next.
        prefix: Text before ``/asr`` and ``/ra``.

    Raises:
        ValueError: If ``every_n_epochs`` is not positive; later, if there is nothing to stamp.
    """

    def __init__(
        self,
        attack: Attack | None = None,
        datamodule: pl.LightningDataModule | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        every_n_epochs: int = 1,
        prefix: str = "val",
    ) -> None:
        if every_n_epochs < 1:
            raise ValueError(f"Expected every_n_epochs to be at least 1, got {every_n_epochs}.")
        self.attack = attack
        self.datamodule = datamodule
        self.normalization = Normalization(mean, std)
        self.every_n_epochs = every_n_epochs
        self.prefix = prefix
        self._wrapped: WrappedDataModule | None = None

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Count over the triggered images and log."""
        if trainer.sanity_checking:
            return
        if trainer.state.fn == TrainerFn.FITTING and (trainer.current_epoch + 1) % self.every_n_epochs:
            return
        with isolate_rng():  # the pass is not to change what the training draws afterwards
            hits = self._count(trainer, pl_module)
        success, robust, eligible = trainer.strategy.reduce(hits, reduce_op="sum")
        values = {f"{self.prefix}/asr": success / eligible, f"{self.prefix}/ra": robust / eligible}
        pl_module.log_dict({name: value.float() for name, value in values.items()}, batch_size=1)

    @torch.no_grad()
    def _count(self, trainer: pl.Trainer, module: pl.LightningModule) -> Tensor:
        data = self._data(trainer)
        ours = isinstance(data, BackdoorDataModule)
        totals = torch.zeros(3, dtype=torch.int64, device=module.device)
        limit = trainer.limit_val_batches
        for batch in islice(data.triggered_batches(module.device), limit if isinstance(limit, int) else None):
            image = self.normalization.redo(batch["image"], batch["image"]) if ours else batch["image"]
            with trainer.precision_plugin.forward_context():
                guess = _logits(module(trainer.precision_plugin.convert_input(image))).argmax(1)
            counted = batch["eligible"]
            right = [(guess == batch[name]) & counted for name in ("label", "clean_label")]
            totals += torch.stack([*right, counted]).sum(1)
        return totals

    def _data(self, trainer: pl.Trainer) -> BackdoorDataModule | WrappedDataModule:
        data = self.datamodule or getattr(trainer, "datamodule", None)
        if isinstance(data, BackdoorDataModule | WrappedDataModule):
            found = data
        elif data is not None and self.attack is not None:
            if self._wrapped is None:
                self._wrapped = wrap(data, self.attack, self.normalization.mean, self.normalization.std)
            found = self._wrapped
        else:
            raise ValueError(
                "Expected a data module to stamp: hand the Trainer one made by lit_backdoor.data.wrap, or give "
                "AttackSuccessCallback both an attack and a datamodule."
            )
        if found.trainer is None:
            found.trainer = trainer
        return found


def _logits(output: Any) -> Tensor:
    """Find the logits ``[B, C]`` in what a module returns: a tensor, ``.logits``, or the first item."""
    logits = getattr(output, "logits", output)
    if isinstance(logits, tuple | list):
        logits = logits[0]
    if not isinstance(logits, Tensor) or logits.ndim != 2:
        raise ValueError(f"Expected the module's forward to return logits [B, C], got {type(output).__name__}.")
    return logits
