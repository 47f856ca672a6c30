"""Poisoned training batches from somebody else's data module."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader

from lit_backdoor.data.foreign import (
    Indexed,
    Keys,
    Normalization,
    find_keys,
    in_order,
    labels_of,
    replaced,
    single_loader,
)
from lit_backdoor.data.samplers import derive_seed
from lit_backdoor.data.stamping import on_device, plant
from lit_backdoor.errors import check_seed
from lit_backdoor.triggers.base import Attack, Role
from lit_backdoor.triggers.paired import PairedTrigger

__all__ = ["WrappedDataModule", "wrap"]


class Marked(NamedTuple):
    """A foreign batch on its way to the device, with the rows to stamp."""

    batch: Any
    rows: Tensor
    poison: Tensor
    cover: Tensor
    seed: int


class MarkingCollate:
    """Collates ``(sample, index)`` pairs with the foreign collate function and marks the planted rows."""

    def __init__(self, collate: Callable[[list[Any]], Any], roles: Tensor, seed: int) -> None:
        self.collate, self.roles, self.seed = collate, roles, seed

    def __call__(self, pairs: list[tuple[Any, int]]) -> Marked:
        positions = [index for _, index in pairs]
        rows = torch.tensor(positions)
        role = self.roles[rows]
        poison, cover = ((role == kind).nonzero().flatten() for kind in (Role.POISON, Role.COVER))
        batch = self.collate([sample for sample, _ in pairs])
        return Marked(batch, rows, poison, cover, derive_seed(self.seed, *positions))


class WrappedDataModule(pl.LightningDataModule):
    """See `wrap`. Unknown attributes are looked up on the wrapped data module."""

    def __init__(
        self,
        datamodule: pl.LightningDataModule,
        attack: Attack,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        num_classes: int | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if not callable(getattr(datamodule, "train_dataloader", None)):
            raise ValueError(
                f"Expected a LightningDataModule, got {type(datamodule).__name__}. One of your data sets is made by "
                "LightningDataModule.from_datasets(train, val)."
            )
        if not isinstance(attack, Attack):
            raise ValueError(
                f"Expected an Attack, such as Attack(Patch(size=3), target=0) of lit_backdoor.triggers, got {attack!r}."
            )
        if num_classes is not None and (not isinstance(num_classes, int) or num_classes < 1):
            raise ValueError(f"Expected num_classes as a whole number of at least 1, got {num_classes!r}.")
        if not attack.trigger.stamps:
            raise ValueError(
                f"Expected an attack whose trigger is stamped, got {type(attack.trigger).__name__}: a foreign data "
                "module does not say which rows carry it. Take its images as a Source with that column instead."
            )
        if isinstance(attack.trigger, PairedTrigger):
            raise ValueError(
                f"Expected a trigger that needs no second image, got {type(attack.trigger).__name__}: a foreign data "
                "module gives rows one by one. Take its images as a Source (DataModuleSource) instead."
            )
        self.wrapped = datamodule
        self.attack = attack
        self.normalization = Normalization(mean, std)
        self.seed = check_seed(seed)
        stated = getattr(datamodule, "num_classes", None)
        self._num_classes = num_classes or (stated if isinstance(stated, int) else None)
        self._labels: Tensor | None = None
        # Lightning would say that the module's own batch hooks are not called; they are, by this class.
        warnings.filterwarnings("ignore", message="You have overridden .* in both `LightningModule` and")

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or "wrapped" not in self.__dict__:
            raise AttributeError(name)
        return getattr(self.wrapped, name)

    def prepare_data(self) -> None:
        """Prepare the wrapped data module."""
        self._attach()
        self.wrapped.prepare_data()

    def setup(self, stage: str) -> None:
        """Set the wrapped data module up."""
        self._attach()
        self.wrapped.setup(stage)

    def teardown(self, stage: str) -> None:
        """Tear the wrapped data module down."""
        self.wrapped.teardown(stage)

    def state_dict(self) -> dict[str, Any]:
        """Give the wrapped data module's state."""
        return self.wrapped.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the wrapped data module's state."""
        self.wrapped.load_state_dict(state_dict)

    def on_exception(self, exception: BaseException) -> None:
        """Tell the wrapped data module."""
        self.wrapped.on_exception(exception)

    def train_dataloader(self) -> DataLoader[Any]:
        """Give the wrapped training loader, its planned rows marked.

        Raises:
            ValueError: If it is not one loader over a dataset with positions, or the plan does not fit its labels.
        """
        loader = single_loader(self.wrapped.train_dataloader(), "train_dataloader()")
        drawing: dict[str, Any] = {"batch_sampler": loader.batch_sampler}
        if type(loader.batch_sampler) is BatchSampler:  # given apart, so that Lightning sees whether it shuffles
            drawing = {"batch_size": loader.batch_size, "sampler": loader.sampler, "drop_last": loader.drop_last}
        return DataLoader(
            Indexed(loader.dataset),
            **drawing,
            collate_fn=MarkingCollate(loader.collate_fn, self._plan(loader), self.seed),
            num_workers=loader.num_workers,
            pin_memory=loader.pin_memory,
            timeout=loader.timeout,
            worker_init_fn=loader.worker_init_fn,
            multiprocessing_context=loader.multiprocessing_context,
            generator=loader.generator,
            prefetch_factor=loader.prefetch_factor,
            persistent_workers=loader.persistent_workers,
        )

    def val_dataloader(self) -> Any:
        """Give the wrapped loaders, clean."""
        return self.wrapped.val_dataloader()

    def test_dataloader(self) -> Any:
        """Give the wrapped loaders, clean."""
        return self.wrapped.test_dataloader()

    def predict_dataloader(self) -> Any:
        """Give the wrapped loaders, clean."""
        return self.wrapped.predict_dataloader()

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Call the hook of whom Lightning would have called."""
        hook = self._owner("on_before_batch_transfer").on_before_batch_transfer
        if isinstance(batch, Marked):
            return batch._replace(batch=hook(batch.batch, dataloader_idx))
        return hook(batch, dataloader_idx)

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Call the hook of whom Lightning would have called; the marks travel along."""
        hook = self._owner("transfer_batch_to_device").transfer_batch_to_device
        if not isinstance(batch, Marked):
            return hook(batch, device, dataloader_idx)
        rows, poison, cover = (part.to(device, non_blocking=True) for part in (batch.rows, batch.poison, batch.cover))
        return Marked(hook(batch.batch, device, dataloader_idx), rows, poison, cover, batch.seed)

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Call the hook of whom Lightning would have called, then plant the marked rows."""
        hook = self._owner("on_after_batch_transfer").on_after_batch_transfer
        if not isinstance(batch, Marked):
            return hook(batch, dataloader_idx)
        return self._planted(batch._replace(batch=hook(batch.batch, dataloader_idx)))

    @torch.no_grad()
    def triggered_batches(self, device: torch.device) -> Iterator[dict[str, Tensor]]:
        """Stamp this process's share of the validation rows, in order, each row once over all processes.

        Yields:
            ``image`` in the form that the wrapped data module gives; ``label`` (the attack's), ``clean_label``,
            ``eligible``.
        """
        found = self.wrapped.val_dataloader()
        loaders = list(found.values()) if isinstance(found, dict) else found if isinstance(found, list) else [found]
        world, rank = (1, 0) if self.trainer is None else (self.trainer.world_size, self.trainer.global_rank)
        trigger = on_device(self.attack.trigger, device)
        for number, loader in enumerate(loaders):
            loader = single_loader(loader, "val_dataloader()")
            clean = torch.zeros(len(loader.dataset), dtype=torch.int8)  # type: ignore[arg-type]
            collate = MarkingCollate(loader.collate_fn, clean, self.seed)
            for marked in in_order(loader, Indexed(loader.dataset), collate, range(rank, len(clean), world)):
                moved = self.on_before_batch_transfer(marked, number)
                moved = self.transfer_batch_to_device(moved, device, number)
                batch = self._owner("on_after_batch_transfer").on_after_batch_transfer(moved.batch, number)
                keys = find_keys(batch)
                image, truth = batch[keys.image], batch[keys.label]
                yield {
                    "image": self.normalization.redo(trigger(self.normalization.undo(image), moved.rows), image),
                    "label": self.attack.relabel(truth, self._classes()),
                    "clean_label": truth,
                    "eligible": self.attack.eligible(truth),
                }

    @torch.no_grad()
    def _planted(self, marked: Marked) -> Any:
        batch, keys = marked.batch, find_keys(marked.batch)
        image, label = batch[keys.image], batch[keys.label]
        trigger = on_device(self.attack.trigger, image.device)
        if not (trigger.alters_benign or len(marked.poison) or len(marked.cover)):
            return batch
        epoch = 0 if self.trainer is None else self.trainer.current_epoch
        generator = torch.Generator().manual_seed(derive_seed(marked.seed, epoch))
        _check_labels(keys, label, len(marked.rows))
        unit = self.normalization.undo(image)
        stamped = plant(trigger, unit.clone(), marked.rows, marked.poison, marked.cover, generator)
        label = label.clone()
        label[marked.poison] = self.attack.relabel(label[marked.poison], self._classes())
        changed = self.normalization.redo(stamped, image)
        if not trigger.alters_benign:  # rows that nobody stamps keep every bit
            rows = torch.cat([marked.poison, marked.cover])
            changed = image.index_copy(0, rows, changed[rows])
        return replaced(batch, keys, changed, label)

    def _plan(self, loader: DataLoader[Any]) -> Tensor:
        self._labels = labels_of(loader) if self._labels is None else self._labels
        if len(self._labels) and int(self._labels.max()) >= self._classes():
            raise ValueError(
                f"Expected labels below num_classes, {self._classes()}, got {int(self._labels.max())}. Give the number "
                "of classes that the data have."
            )
        self.attack.check(self._classes())
        return self.attack.roles(self._labels, seed=self.seed)

    def _classes(self) -> int:
        if self._num_classes is None:
            if self._labels is None:
                self._labels = labels_of(single_loader(self.wrapped.train_dataloader(), "train_dataloader()"))
            self._num_classes = int(self._labels.max()) + 1
        return self._num_classes

    def _owner(self, hook: str) -> Any:
        """Say whose batch hook Lightning calls without this wrapper."""
        self._attach()
        if self.trainer is None or is_overridden(hook, self.wrapped, pl.LightningDataModule):
            return self.wrapped
        return self.trainer.lightning_module

    def _attach(self) -> None:
        self.wrapped.trainer = self.trainer


def _check_labels(keys: Keys, label: Tensor, rows: int) -> None:
    if label.shape != (rows,) or label.is_floating_point():
        raise ValueError(
            f"Expected integer labels [{rows}] at {keys.label!r} after the batch hooks, got {label.dtype} "
            f"{list(label.shape)}. Mix, drop or smooth in training_step instead."
        )


def wrap(
    datamodule: pl.LightningDataModule,
    attack: Attack,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    num_classes: int | None = None,
    seed: int = 0,
) -> WrappedDataModule:
    """Poison the training batches of somebody else's data module; all else stays as it was.

    Batches keep their shape ((x, y, ...) or dict). Its own batch hooks, or those of the module, run first; then the
    planned rows are brought to [0, 1], stamped, normalized again and relabeled. The plan is a function of the training
    labels and the seed, so a row is poisoned in every epoch or in none.

    Args:
        datamodule: Its ``train_dataloader()`` is one loader over a map-style dataset.
        attack: What is planted.
        mean: Mean that the images come normalized with; None where they are in [0, 1] or uint8.
        std: Deviation likewise.
        num_classes: Number of classes; default the data module's ``num_classes``, else the largest label plus one.
        seed: Seed of the plan, where the attack has none.

    Raises:
        ValueError: If mean or std is missing, or rows carry the trigger themselves; later, if rows cannot be told apart
            or the plan does not fit.
    """
    return WrappedDataModule(datamodule, attack, mean, std, num_classes, seed)
