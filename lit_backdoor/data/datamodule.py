"""One data module for attacks and defenses: views of a source, poisoned on the device."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Literal

import lightning.pytorch as pl
import torch
import torch.distributed as dist
from lightning.fabric.utilities import move_data_to_device
from torch import Tensor

from lit_backdoor.data.attack_given import attack_given
from lit_backdoor.data.augment import Augment, CropFlip
from lit_backdoor.data.loaders import OneEmptyBatch, ViewLoader, check_counts, load
from lit_backdoor.data.resident import ResidentPixels
from lit_backdoor.data.samplers import ViewSampler, derive_seed
from lit_backdoor.data.sources.base import Source
from lit_backdoor.data.split import Split
from lit_backdoor.data.stamping import on_device, plant, resized
from lit_backdoor.data.views import VIEWS, View, count_rows, pair_views, plan_views, selected_view
from lit_backdoor.errors import check_seed, one_of
from lit_backdoor.triggers.base import Attack, Trigger

__all__ = ["BackdoorDataModule"]

Batch = dict[str, Any]
_AUGMENTED = ("train", "root", "attacker")


class BackdoorDataModule(pl.LightningDataModule):
    """Serves the views of a source that attacks, defenses and evaluations need.

    Views: ``train`` (questioned set, poisoned, shuffled), ``questioned`` (the same rows in order), ``root`` (the
    defender's clean rows), ``suspicious`` (selected rows of the questioned set), ``clean`` and ``triggered`` (all test
    rows, untouched and stamped; where rows carry the trigger themselves, those without and those with it), ``attacker``
    (the questioned rows untouched, with their roles: what an attacker trains on who controls training). ``train``,
    ``root`` and ``attacker`` are augmented in training, nothing else ever is.

    A batch on the device is a dict: ``image`` float ``[B, 3, H, W]`` in [0, 1]; ``label`` (what the view says),
    ``clean_label`` (the truth) and ``index`` (position in the source's part), int64 ``[B]``; ``role``, int8; ``valid``,
    False on padding rows; ``seed``, an int to draw this batch's randomness from; ``view``, its name. The triggered view
    adds ``eligible`` (rows that count in ASR and RA), ``original`` (images before it) if the trigger is stamped, and
    ``partner`` if it takes a second image.

    Args:
        source: Where the images come from.
        split: Who holds which training rows; default `Split`.
        attack: What the attacker does: an `Attack`, the name of a shipped one (``badnets``), or the path of a bundle,
            whose own attack is taken, trained triggers included; None for clean data without a triggered view.
        augment: Augmentation in training; None for none.
        batch_size: Rows per process in training.
        eval_batch_size: Rows per process in passes in order.
        num_workers: Worker processes per loader; 0 is fastest where the source sits in memory.
        seed: Seed of split, plan (where the attack has none), order and augmentation.
        suspicious: Path of the selection bundle behind the ``suspicious`` view.
        stored_size: Side in pixels that images are brought to before the trigger; None keeps the source's size.
        view: The view, or views, of `train_dataloader`; None takes those that the running stage names.
        root_source: Images of the root set from elsewhere, instead of the split's. Where its classes have other names
            than the source's, its labels are -1 until `set_root_labels`, and each stage's suspect gives its own.
        resident_bytes: On an accelerator, a part of the source of up to so many bytes is copied there once, and a batch
            travels without its images; 0 for never. The batches are the same.

    Raises:
        ValueError: If a size is not positive, a view, the attack's name or the augmentation is unknown, or the bundle
            that is to give the attack holds none.
    """

    takes: ClassVar[Mapping[str, tuple[str, ...]]] = {"suspicious": ("selection",)}  # bundles, as stages have it

    def __init__(
        self,
        source: Source,
        split: Split | None = None,
        attack: Attack | str | None = None,
        augment: Augment | Literal["crop_flip"] | None = "crop_flip",
        batch_size: int = 128,
        eval_batch_size: int = 512,
        num_workers: int = 0,
        seed: int = 0,
        suspicious: str | None = None,
        stored_size: int | None = None,
        view: str | list[str] | None = None,
        root_source: Source | None = None,
        resident_bytes: int = 2**31,
    ) -> None:
        super().__init__()
        check_counts(batch_size=batch_size, eval_batch_size=eval_batch_size, stored_size=stored_size)
        check_counts(num_workers=num_workers, resident_bytes=resident_bytes)
        self.source = source
        self.split = split or Split()
        self.attack = attack_given(attack)
        self.augment = CropFlip() if augment == "crop_flip" else augment
        if not (self.augment is None or isinstance(self.augment, Augment)):
            raise ValueError(f"Expected data.augment to be 'crop_flip', an Augment or None, got {augment!r}.")
        self.batch_size = batch_size
        self.eval_batch_size = eval_batch_size
        self.num_workers = num_workers
        self.seed = check_seed(seed)
        self.suspicious = suspicious
        self.stored_size = stored_size
        self.view = [view] if isinstance(view, str) else view
        self.root_source = root_source
        for name in self.view or ():
            one_of("view", name, VIEWS)
        self.resident = ResidentPixels(resident_bytes)
        self._lent: Trigger | None = None
        self._views: dict[str, View] = {}

    def __str__(self) -> str:
        """Name source and trigger; Lightning's own would make every loader, to count rows."""
        trigger = "no attack" if self.attack is None else type(self.attack.trigger).__name__
        return f"{type(self).__name__}({type(self.source).__name__}, {trigger}, seed={self.seed})"

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.source.class_names)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, in the order of their labels."""
        return self.source.class_names

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of the images that loaders give, in pixels."""
        return self.source.image_size if self.stored_size is None else (self.stored_size, self.stored_size)

    @property
    def counts(self) -> dict[str, int]:
        """Rows by name: ``train``, of them ``poison`` and ``cover``, ``root``, ``clean``, ``triggered`` (eligible)."""
        self.setup()
        return count_rows(self._views)

    @property
    def trigger(self) -> Trigger | None:
        """The trigger that is stamped: the lent one, else the attack's."""
        return self._lent or (self.attack.trigger if self.attack else None)

    def lend(self, trigger: Trigger | None) -> None:
        """Stamp with a stage's trigger instead of the attack's; None takes it back. The stage moves it to its device.

        Raises:
            ValueError: If there is no attack, whose labels and plan the trigger would need, or its rows carry their
                own.
        """
        if self.attack is None:
            raise ValueError(
                "Expected data.attack to be set before a trigger is lent: it gives the labels and the plan."
            )
        if trigger is not None and not self.attack.trigger.stamps:
            raise ValueError(
                "Expected an attack whose trigger is stamped before one is lent, got "
                f"{type(self.attack.trigger).__name__}."
            )
        self._lent = trigger
        pair_views(self._views, self.trigger, self.seed)

    def set_root_labels(self, labels: Tensor, guessed: bool = False) -> None:
        """Label the root set, in the order of ``loader("root")``; also reaches loaders that stand already.

        Args:
            labels: One for each row, int64 ``[N]``.
            guessed: Whether they are one suspect's opinion, so that the next stage asks its own.

        Raises:
            ValueError: If the number of labels is not that of the root set.
        """
        root = self.get_view("root")
        if labels.shape != root.label.shape:
            raise ValueError(f"Expected {len(root)} labels, one per root row, got shape {tuple(labels.shape)}.")
        for own in (root.label, root.clean_label):
            own.copy_(labels)
        root.unlabeled = guessed

    def prepare_data(self) -> None:
        """Download the source, where it needs that."""
        self.source.prepare()
        if self.root_source is not None:
            self.root_source.prepare()

    def setup(self, stage: str | None = None) -> None:
        """Split the rows and plan the attack, once.

        Raises:
            ValueError: If split or attack do not fit the data; says what is possible.
        """
        if not self._views:
            self._views = plan_views(self.source, self.split, self.attack, self.seed, self.root_source)
            pair_views(self._views, self.trigger, self.seed)

    def get_view(self, name: str) -> View:
        """Give a view: its rows, labels and roles.

        Raises:
            ValueError: If there is no such view, or it has no rows here; says why.
        """
        self.setup()
        one_of("view", name, VIEWS)
        if name == "suspicious" and name not in self._views:
            self._views[name] = selected_view(self._views["questioned"], self.suspicious, self.attack, self.num_classes)
        if name == "triggered" and name not in self._views:
            raise ValueError("Expected data.attack to be set: without an attack there is no view 'triggered'.")
        view = self._views[name]
        if not len(view):
            raise ValueError(f"The view '{name}' has no rows. Give data.split a larger {name} set.")
        return view

    def loader(
        self,
        view: str,
        *,
        batch_size: int | None = None,
        shuffle: bool | None = None,
        steps: int | None = None,
        world_size: int | None = None,
        rank: int | None = None,
    ) -> ViewLoader:
        """Make a loader; hand its batches to `images`, once they are on the device.

        Args:
            view: One of the views.
            batch_size: Rows per process; default ``batch_size`` where shuffled, else ``eval_batch_size``.
            shuffle: Default True for ``train`` alone. A shuffled loader leaves out an incomplete last batch, unless it
                is the only one; call ``loader.sampler.set_epoch`` outside a Trainer.
            steps: Number of batches; None for one pass.
            world_size: Number of processes; default that of the process group or the Trainer.
            rank: This process; default likewise.
        """
        rows = self.get_view(view)
        shuffle = view == "train" if shuffle is None else shuffle
        found = self._processes()
        sampler = ViewSampler(
            len(rows),
            batch_size or (self.batch_size if shuffle else self.eval_batch_size),
            shuffle=shuffle,
            drop_last=shuffle,
            steps=steps,
            seed=derive_seed(self.seed, VIEWS.index(view)),
            num_replicas=found[0] if world_size is None else world_size,
            rank=found[1] if rank is None else rank,
        )
        device = torch.device("cpu") if self.trainer is None else self.trainer.strategy.root_device
        if self.resident.fit(rows.rows, device):
            rows = replace(rows, sends_images=False)
        return load(rows, sampler, self.num_workers, pin_memory=device.type == "cuda")

    def train_dataloader(self) -> ViewLoader | dict[str, ViewLoader]:
        """Give the loader of the stage's view, or a dict of equally long loaders where it names several."""
        loaders = {name: self._train_loader(name) for name in self._stage_views()}
        if len(loaders) == 1:
            return next(iter(loaders.values()))
        steps = max(len(loader) for loader in loaders.values())
        return {name: self._train_loader(name, steps) for name in loaders}

    def val_dataloader(self) -> dict[str, ViewLoader]:
        """Give the loaders ``clean`` and, where there is an attack, ``triggered``."""
        self.setup()
        return {name: self.loader(name) for name in ("clean", "triggered") if name in self._views}

    def test_dataloader(self) -> dict[str, ViewLoader]:
        """Give the loaders ``clean`` and, where there is an attack, ``triggered``."""
        return self.val_dataloader()

    def predict_dataloader(self) -> Any:
        """Give the loaders of the stage's views in order; a stage without views gets one empty batch."""
        loaders = {name: self.loader(name, shuffle=False) for name in self._stage_views()}
        if not loaders:
            return OneEmptyBatch()
        return next(iter(loaders.values())) if len(loaders) == 1 else loaders

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Finish the batch, or each of several views' batches, on the device."""
        training = self.trainer is not None and self.trainer.training
        if "view" in batch:
            return self.images(batch, training)
        return {name: self.images(part, training) for name, part in batch.items()}

    @torch.no_grad()
    def images(self, batch: Mapping[str, Any], training: bool = False) -> Batch:
        """Finish a loader's batch on its device: stored size, trigger, then augmentation in training.

        Args:
            batch: A batch of `loader`, moved to the device.
            training: Whether to augment, and to let the trigger change clean rows, in the views that have that.
        """
        batch = dict(batch)
        view, index = batch["view"], batch["index"]
        image = self._pixels(batch, "image", "index")
        generator = torch.Generator().manual_seed(batch["seed"])
        partners = (self._pixels(batch, "partner", "partner_index"),) if "partner_index" in batch else ()
        poison, cover, *_ = (batch.pop(key, None) for key in ("poison_rows", "cover_rows", "partner", "partner_index"))
        stamps = self.trigger is not None and self.trigger.stamps  # else rows carry the trigger as they are
        if poison is not None and stamps:
            drawn = generator if training and view == "train" else None
            image = plant(self._trigger_on(image.device), image, index, poison, cover, drawn, *partners)
        elif view == "triggered" and stamps:
            batch |= {"original": image, **({"partner": partners[0]} if partners else {})}
            image = self._trigger_on(image.device)(image, index, *partners)
        if training and view in _AUGMENTED and self.augment is not None:
            image = self.augment(image, batch["role"], generator)
        batch["image"] = image
        return batch

    def triggered_batches(self, device: torch.device) -> Iterator[Batch]:
        """Go through this process's share of the ``triggered`` view, finished on a device."""
        for batch in self.loader("triggered"):
            yield self.images(move_data_to_device(batch, device))

    def _pixels(self, batch: Batch, sent: str, index: str) -> Tensor:
        """Give a batch's images in [0, 1]: those that it brought, else those that are on the device."""
        found = batch.get(sent)
        if found is None:
            found = self.resident.images(self.get_view(batch["view"]).rows, batch[index])
        return resized(found.float().div_(255), self.image_size)

    def _trigger_on(self, device: torch.device) -> Trigger:
        if self._lent is not None:
            return self._lent
        assert self.attack is not None  # a view with planted rows was made from one
        return on_device(self.attack.trigger, device)

    def _train_loader(self, view: str, steps: int | None = None) -> ViewLoader:
        loader = self.loader(view, batch_size=self.batch_size, shuffle=view != "questioned", steps=steps)
        if self.trainer is not None:
            progress = self.trainer.fit_loop.epoch_loop.batch_progress
            loader.done = lambda: progress.current.ready  # not 0 only where a run resumes within an epoch
        return loader

    def _stage_views(self) -> Sequence[str]:
        stage = None if self.trainer is None else self.trainer.lightning_module
        return self.view or tuple(getattr(stage, "views", ("root",)))

    def _processes(self) -> tuple[int, int]:
        if dist.is_available() and dist.is_initialized():
            return dist.get_world_size(), dist.get_rank()
        return (1, 0) if self.trainer is None else (self.trainer.world_size, self.trainer.global_rank)
