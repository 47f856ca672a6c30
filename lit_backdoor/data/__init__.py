"""Data: sources, who holds which rows, and the views that stages train and are evaluated on."""

from lit_backdoor.data.augment import Augment, ByRole, CropFlip, NoAugment
from lit_backdoor.data.datamodule import BackdoorDataModule
from lit_backdoor.data.fixed import PoisonedDataModule, RootDataModule
from lit_backdoor.data.foreign_source import DataModuleSource
from lit_backdoor.data.sources import (
    Cifar10,
    CsvSource,
    ImageFolderSource,
    ParquetSource,
    Rows,
    Source,
    SyntheticSigns,
    TensorSource,
    TorchvisionSource,
)
from lit_backdoor.data.split import BalancedSplit, Parts, Split
from lit_backdoor.data.wrap import WrappedDataModule, wrap

__all__ = [
    "Augment",
    "BackdoorDataModule",
    "BalancedSplit",
    "ByRole",
    "Cifar10",
    "CropFlip",
    "CsvSource",
    "DataModuleSource",
    "ImageFolderSource",
    "NoAugment",
    "ParquetSource",
    "Parts",
    "PoisonedDataModule",
    "RootDataModule",
    "Rows",
    "Source",
    "Split",
    "SyntheticSigns",
    "TensorSource",
    "TorchvisionSource",
    "WrappedDataModule",
    "wrap",
]
