"""Another project's data module as a source."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch import Tensor

from lit_backdoor.data.foreign import Normalization, find_keys, in_order, single_loader
from lit_backdoor.data.sources.base import Part, Rows, Source, TensorRows, check_labels, digest, numbers

__all__ = ["DataModuleSource"]


class DataModuleSource(Source):
    """The datasets of a `LightningDataModule`, read once into memory as uint8.

    Rows come in the order of its datasets, through its collate function but not its batch hooks. Give it without random
    augmentation: what is read is kept. The test part is its test set, or its validation set where it has none.

    Args:
        datamodule: Its training and test loaders are one torch `DataLoader` each.
        mean: Mean that the samples are normalized with; None where they are in [0, 1], integers in 0..255 or bool.
        std: Deviation likewise.
        class_names: Names in the order of the labels; default its own, else numbers up to the largest label.

    Raises:
        ValueError: If only one of mean and std is given; later, if a batch cannot be read.
    """

    def __init__(
        self,
        datamodule: pl.LightningDataModule,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        class_names: Sequence[str] | None = None,
    ) -> None:
        self.datamodule = datamodule
        self.normalization = Normalization(mean, std)
        names = class_names or getattr(datamodule, "class_names", None)
        self._class_names = None if names is None else tuple(names)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names in the order of the labels."""
        if self._class_names is None:
            self._class_names = numbers(max(int(part.labels.max()) for part in (self.train(), self.test())) + 1)
        return self._class_names

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of every image."""
        height, width = self.train().images(torch.tensor([0])).shape[2:]
        return height, width

    def prepare(self) -> None:
        """Let the data module prepare its data."""
        self.datamodule.prepare_data()

    def fingerprint(self) -> str:
        """Hash images, labels and names."""
        parts = [(part.images(torch.arange(len(part))), part.labels) for part in (self.train(), self.test())]
        return digest("datamodule", *parts[0], *parts[1], self.class_names)

    def _load(self, part: Part) -> Rows:
        if part == "train":
            self.datamodule.setup("fit")
            loader = self.datamodule.train_dataloader()
        elif is_overridden("test_dataloader", self.datamodule, pl.LightningDataModule):
            self.datamodule.setup("test")
            loader = self.datamodule.test_dataloader()
        else:
            self.datamodule.setup("validate")
            loader = self.datamodule.val_dataloader()
        loader = single_loader(loader, f"the {part} loader")
        images, labels = [], []
        for batch in in_order(loader, loader.dataset, loader.collate_fn):
            keys = find_keys(batch)
            images.append(self._pixels(batch[keys.image]))
            labels.append(torch.as_tensor(batch[keys.label]))
        pixels = torch.cat(images)
        if pixels.max() <= 1:
            warnings.warn(
                f"The images of the {part} set are all but black, with no value above 1 of 255. Give images of 0 and 1 "
                "as bool or float.",
                stacklevel=2,
            )
        names = self._class_names
        known = len(names) if names is not None else int(max(part.max() for part in labels)) + 1
        return TensorRows(pixels, check_labels(torch.cat(labels), known, f"{part} set"))

    def _pixels(self, images: Any) -> Tensor:
        """Bring a batch to uint8 ``[B, 3, H, W]``."""
        if not isinstance(images, Tensor) or images.ndim != 4 or images.shape[1] not in (1, 3):
            got = list(images.shape) if isinstance(images, Tensor) else f"a {type(images).__name__}"
            raise ValueError(
                f"Expected batches of images [B, 1 or 3, H, W], got {got}. In the dataset, bring the channels to the "
                "front by image.permute(2, 0, 1), and RGBA to RGB by image.convert('RGB')."
            )
        self.normalization.check(images)
        return (self.normalization.undo(images) * 255).round().to(torch.uint8).expand(-1, 3, -1, -1)
