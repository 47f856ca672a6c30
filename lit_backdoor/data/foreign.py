"""Reading and rewriting batches of data modules that are not ours."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from types import NoneType
from typing import Any, NamedTuple

import torch
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset

from lit_backdoor.errors import check_statistics

__all__ = ["Indexed", "Keys", "Normalization", "find_keys", "in_order", "labels_of", "replaced", "single_loader"]

_IMAGE_KEYS = ("image", "images", "img", "x", "input", "inputs", "pixel_values")
_LABEL_KEYS = ("label", "labels", "target", "targets", "y")
_ROUNDING = 1e-3  # interpolation goes a little beyond [0, 1]; a quarter of a byte is rounded away


class Keys(NamedTuple):
    """Where images and labels stand in a batch."""

    image: int | str
    label: int | str


def find_keys(batch: Any) -> Keys:
    """Find images and labels: the first two items of a tuple or list, or the usual keys of a dict.

    Raises:
        ValueError: If the batch is none of these.
    """
    if isinstance(batch, tuple | list) and len(batch) >= 2:
        return Keys(0, 1)
    if isinstance(batch, Mapping):
        image = next((key for key in _IMAGE_KEYS if key in batch), None)
        label = next((key for key in _LABEL_KEYS if key in batch), None)
        if image is not None and label is not None:
            return Keys(image, label)
        raise ValueError(
            f"Expected a batch with one of {', '.join(_IMAGE_KEYS)} and one of {', '.join(_LABEL_KEYS)}, "
            f"got the keys {sorted(map(str, batch))}."
        )
    raise ValueError(f"Expected batches that are (images, labels, ...) or a dict of them, got {type(batch).__name__}.")


def replaced(batch: Any, keys: Keys, image: Tensor, label: Tensor) -> Any:
    """Give a batch of the same shape and type with other images and labels."""
    if isinstance(batch, tuple):
        items = [image, label, *batch[2:]]
        return type(batch)(*items) if hasattr(batch, "_fields") else tuple(items)
    batch = copy.copy(batch)
    batch[keys.image], batch[keys.label] = image, label
    return batch


class Normalization:
    """The way between somebody's images and [0, 1].

    Args:
        mean: Mean per channel that was subtracted; None where the images are in [0, 1], 0..255 or bool as they are.
        std: Deviation per channel that was divided by.

    Raises:
        ValueError: If only one is given or they are no such numbers; later, if they are for another number of
            channels, or the images turn out to be normalized and none was given.
    """

    def __init__(self, mean: Sequence[float] | None = None, std: Sequence[float] | None = None) -> None:
        if (mean is None) != (std is None):
            raise ValueError("Expected mean and std together, got only one of them.")
        self.mean: tuple[float, ...] | None = None
        self.std: tuple[float, ...] | None = None
        if mean is not None and std is not None:
            self.mean, self.std = check_statistics(mean, std)
        self._looked = False

    def undo(self, images: Tensor) -> Tensor:
        """Bring images ``[B, C, H, W]`` to [0, 1]."""
        if not images.is_floating_point():
            return images.float() / (1 if images.dtype == torch.bool else 255)
        if self.mean is not None and self.std is not None:
            return (images * self._channels(self.std, images) + self._channels(self.mean, images)).clamp(0, 1)
        if not self._looked and images.numel():  # once: looking waits for the device
            self.check(images)
            self._looked = True
        return images

    def check(self, images: Tensor) -> None:
        """Check that images can be brought to [0, 1]; waits for the device.

        Raises:
            ValueError: If values are not finite, integers outside 0..255, or floats outside [0, 1] though no mean was
                given.
        """
        if not images.numel():
            return
        low, high = (float(value) for value in images.float().aminmax())
        if not math.isfinite(high - low):
            raise ValueError(
                "Expected images of finite values, got NaN or infinity among them. Leave these rows out of the dataset."
            )
        if not images.is_floating_point():
            if low < 0 or high > 255:
                raise ValueError(
                    f"Expected integers in 0..255 or floats in [0, 1], got integers from {low:.5g} to {high:.5g}: "
                    "scale them."
                )
        elif self.mean is None and (low < -_ROUNDING or high > 1 + _ROUNDING):
            raise ValueError(
                f"Expected images in [0, 1], got values from {low:.3g} to {high:.3g}. Give the mean and std that they "
                "were normalized with, or clamp them."
            )

    def redo(self, images: Tensor, like: Tensor) -> Tensor:
        """Bring images in [0, 1] to the form and type of ``like``."""
        if like.dtype == torch.bool:
            return images > 0.5
        if not like.is_floating_point():
            return (images * 255).round().to(like.dtype)
        if self.mean is not None and self.std is not None:
            images = (images - self._channels(self.mean, images)) / self._channels(self.std, images)
        return images.to(like.dtype)

    @staticmethod
    def _channels(values: tuple[float, ...], images: Tensor) -> Tensor:
        if len(values) not in (1, images.shape[1]):
            raise ValueError(
                f"Expected mean and std of each of the {images.shape[1]} channels of the images, got {len(values)}."
            )
        return torch.tensor(values, dtype=images.dtype).to(images.device, non_blocking=True).view(-1, 1, 1)


class Indexed(Dataset[tuple[Any, int]]):
    """A dataset whose samples come with their positions."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        return self.dataset[index], int(index)


def single_loader(loader: Any, what: str) -> DataLoader[Any]:
    """Give back a loader whose rows have an identity.

    Raises:
        ValueError: If it is not one `DataLoader` over a dataset with positions.
    """
    if not isinstance(loader, DataLoader):
        raise ValueError(f"Expected {what} to be one torch DataLoader, got {type(loader).__name__}.")
    if isinstance(loader.dataset, IterableDataset) or loader.batch_sampler is None:
        raise ValueError(
            f"Expected {what} to draw single rows by position and to collate them: which rows are poisoned is planned "
            "beforehand. Give a map-style dataset and a batch size."
        )
    return loader


def in_order(
    loader: DataLoader[Any], dataset: Any, collate: Callable[[list[Any]], Any], rows: Sequence[int] | None = None
) -> DataLoader[Any]:
    """Make a loader over all rows in order (or those named), workers and batch size as in somebody's loader."""
    return DataLoader(
        dataset,
        batch_size=loader.batch_size or 256,
        sampler=range(len(dataset)) if rows is None else rows,
        collate_fn=collate,
        num_workers=loader.num_workers,
        multiprocessing_context=loader.multiprocessing_context,
        worker_init_fn=loader.worker_init_fn,
    )


def labels_of(loader: DataLoader[Any]) -> Tensor:
    """Read the labels that a loader's dataset serves, in its order, int64 ``[N]``; no random state moves.

    Every sample is read once, because a dataset may renumber, filter or name what it stores. Only torchvision's own
    classes, and subsets of them, are known to serve the labels that they store.

    Raises:
        ValueError: If labels are no integers ``[B]``.
    """
    dataset = loader.dataset
    stored = _stored_labels(dataset)
    if stored is not None:
        return stored
    with isolate_rng():
        return torch.cat([_labels(batch) for batch in in_order(loader, dataset, loader.collate_fn)])


def _labels(batch: Any) -> Tensor:
    key = find_keys(batch).label
    given = batch[key]
    try:
        labels = torch.as_tensor(given)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"Expected integer labels [B] at {key!r}, got {type(given).__name__} of {type(given[0]).__name__}. Number "
            "the classes in the dataset."
        ) from error
    if labels.ndim != 1 or labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        fix = "Squeeze them" if labels.ndim == 2 and labels.shape[1] == 1 else "Give the number of the class"
        raise ValueError(
            f"Expected integer labels [B] at {key!r}, got {labels.dtype} {list(labels.shape)}. {fix} in the dataset."
        )
    return labels.long()


def _stored_labels(dataset: Any) -> Tensor | None:
    """Look up the labels that a dataset of torchvision serves; None where they have to be read."""
    from torchvision import datasets
    from torchvision.datasets.vision import StandardTransform

    if type(dataset) is Subset:
        stored = _stored_labels(dataset.dataset)
        return None if stored is None else stored[torch.as_tensor(dataset.indices)]
    joint = getattr(dataset, "transforms", None)
    if getattr(dataset, "target_transform", None) is not None or type(joint) not in (NoneType, StandardTransform):
        return None
    if type(dataset) in (datasets.ImageFolder, datasets.DatasetFolder):
        return torch.tensor([label for _, label in dataset.samples])
    arrays = (datasets.CIFAR10, datasets.CIFAR100, datasets.MNIST, datasets.FashionMNIST, datasets.KMNIST)
    if type(dataset) in arrays and len(dataset.targets) == len(dataset):
        return torch.as_tensor(dataset.targets).long()
    return None
