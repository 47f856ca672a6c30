"""Data sets that torchvision knows how to download and read."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from lit_backdoor.data.sources.base import Part, Rows, Source, TensorRows, check_labels, digest, size_pair
from lit_backdoor.data.sources.files import not_found
from lit_backdoor.errors import one_of
from lit_backdoor.pictures import to_rgb
from lit_backdoor.presets import at_home, cache_folder

__all__ = ["TorchvisionSource"]

_PARTS: tuple[Part, Part] = ("train", "test")
_BY_FLAG = ("CIFAR10", "CIFAR100", "MNIST", "FashionMNIST", "KMNIST", "USPS")
_BY_SPLIT = ("SVHN", "STL10", "GTSRB", "Flowers102", "Food101", "OxfordIIITPet", "DTD", "FGVCAircraft")


class TorchvisionSource(Source):
    """A labeled data set of ``torchvision.datasets``, decoded once into memory.

    Args:
        name: One of torchvision's names, such as ``"CIFAR100"``, ``"GTSRB"``, ``"SVHN"``, ``"STL10"``, ``"MNIST"``.
        root: Folder of torchvision's copy; None means ``data`` in the cache folder.
        size: Side of the square, or height and width, to resize to; needed where sizes differ (GTSRB).

    Raises:
        ValueError: If the name is unknown; when used, if image sizes differ without a ``size``.
        FileNotFoundError: When used, if the copy is missing and `prepare` was not called, or could not download it.
    """

    def __init__(self, name: str, root: str | None = None, size: int | tuple[int, int] | None = None) -> None:
        self.name = one_of("torchvision data set", name, _BY_FLAG + _BY_SPLIT)
        self.root = at_home(root) if root else cache_folder() / "data"
        self._size = None if size is None else size_pair(size)

    def prepare(self) -> None:
        """Download both parts unless they are there."""
        for part in _PARTS:
            try:
                self.root.mkdir(parents=True, exist_ok=True)
                self._open(part, download=True)
            except (OSError, RuntimeError) as error:  # no network, a server that is gone, a full disk
                missing = not_found(f"torchvision's copy of {self.name}", [self.root])
                raise FileNotFoundError(f"{missing} Downloading it failed: {error}.") from error

    @cached_property
    def class_names(self) -> tuple[str, ...]:
        """Names in the order of the labels; numbers where torchvision names none."""
        names = getattr(self._open("train"), "classes", None)
        if names is None:
            names = range(int(self._pixels_and_labels("train")[1].max()) + 1)
        return tuple(str(name) for name in names)

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of every image."""
        height, width = self._pixels_and_labels("train")[0].shape[2:]
        return height, width

    def fingerprint(self) -> str:
        """Hash images, labels and names of both parts."""
        if "_digest" not in self.__dict__:
            parts = (self._pixels_and_labels("train"), self._pixels_and_labels("test"))
            self._digest = digest("torchvision", *(item for part in parts for item in part), self.class_names)
        return self._digest

    def _open(self, part: Part, download: bool = False) -> Any:
        import torchvision.datasets

        choice = {"train": part == "train"} if self.name in _BY_FLAG else {"split": part}
        try:
            return getattr(torchvision.datasets, self.name)(str(self.root), download=download, **choice)
        except RuntimeError as error:
            if download:
                raise
            raise not_found(f"torchvision's copy of {self.name}", [self.root]) from error

    def _load(self, part: Part) -> Rows:
        pixels, labels = self._pixels_and_labels(part)
        return TensorRows(pixels, check_labels(labels, self.num_classes, f"{self.name} {part}"))

    def _pixels_and_labels(self, part: Part) -> tuple[Tensor, Tensor]:
        kept: dict[Part, tuple[Tensor, Tensor]] = self.__dict__.setdefault("_decoded", {})
        if part not in kept:
            pairs = [(self._pixels(image, row, part), label) for row, (image, label) in enumerate(self._open(part))]
            sizes = sorted({image.shape[:2] for image, _ in pairs})
            if len(sizes) > 1:
                raise ValueError(
                    f"{self.name} has images from {sizes[0]} to {sizes[-1]} (height, width). Give a `size` to resize "
                    "all to."
                )
            pixels = np.stack([image for image, _ in pairs]).transpose(0, 3, 1, 2)
            labels = torch.tensor([int(label) for _, label in pairs])
            kept[part] = (torch.from_numpy(np.ascontiguousarray(pixels)), labels)
        return kept[part]

    def _pixels(self, image: Image.Image, row: int, part: Part) -> NDArray[np.uint8]:
        try:
            rgb = to_rgb(image)
            return np.asarray(rgb if self._size is None else rgb.resize(self._size[::-1], Image.Resampling.BILINEAR))
        except OSError as error:
            raise ValueError(f"{self.name} {part}, row {row}: not a readable image ({error}).") from error
