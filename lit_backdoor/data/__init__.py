"""Data: sources, who holds which rows, and the views that stages train and are evaluated on."""

from lit_backdoor.data.augment import Augment, ByRole, CropFlip, NoAugment
from lit_backdoor.data.datamodule import BackdoorDataModule, PoisonedDataModule, RootDataModule
from lit_backdoor.data.sources.base import Rows, Source
from lit_backdoor.data.split import Parts, Split

__all__ = [
    "Augment",
    "BackdoorDataModule",
    "ByRole",
    "CropFlip",
    "NoAugment",
    "Parts",
    "PoisonedDataModule",
    "RootDataModule",
    "Rows",
    "Source",
    "Split",
]
