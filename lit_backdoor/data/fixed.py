"""Data modules with the view fixed, for use outside the package's stages."""

from __future__ import annotations

from typing import Literal

from lit_backdoor.data.augment import Augment
from lit_backdoor.data.datamodule import BackdoorDataModule
from lit_backdoor.data.sources.base import Source
from lit_backdoor.data.split import Split
from lit_backdoor.triggers.base import Attack

__all__ = ["PoisonedDataModule", "RootDataModule"]


class PoisonedDataModule(BackdoorDataModule):
    """`BackdoorDataModule` that trains on the poisoned questioned set; arguments as there."""

    def __init__(
        self,
        source: Source,
        attack: Attack,
        split: Split | None = None,
        augment: Augment | Literal["crop_flip"] | None = "crop_flip",
        batch_size: int = 128,
        eval_batch_size: int = 512,
        num_workers: int = 0,
        seed: int = 0,
        stored_size: int | None = None,
    ) -> None:
        super().__init__(
            source, split, attack, augment, batch_size, eval_batch_size, num_workers, seed, None, stored_size, "train"
        )


class RootDataModule(BackdoorDataModule):
    """`BackdoorDataModule` that trains on the defender's clean root set; arguments as there."""

    def __init__(
        self,
        source: Source,
        split: Split | None = None,
        attack: Attack | None = None,
        augment: Augment | Literal["crop_flip"] | None = "crop_flip",
        batch_size: int = 128,
        eval_batch_size: int = 512,
        num_workers: int = 0,
        seed: int = 0,
        stored_size: int | None = None,
    ) -> None:
        super().__init__(
            source, split, attack, augment, batch_size, eval_batch_size, num_workers, seed, None, stored_size, "root"
        )
