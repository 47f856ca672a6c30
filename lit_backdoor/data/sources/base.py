"""What every source of images offers: two parts of uint8 rows by index, labels, class names, a fingerprint."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

__all__ = [
    "DelegatedSource",
    "Part",
    "Rows",
    "Source",
    "TensorRows",
    "check_labels",
    "digest",
    "distinct",
    "numbers",
    "size_pair",
]

Part = Literal["train", "test"]
_MOST_CLASSES = 1_000_000
_LARGEST_SIDE = 4_096  # pixels; a batch of larger images would take gigabytes


class Rows(ABC):
    """One part of a source.

    Attributes:
        labels: int64 ``[N]``; -1 where nobody has labeled the row yet (`UnlabeledFolder`).
        columns: Further int64 or bool columns ``[N]`` by name, such as ``sunglasses``.
        in_memory: Whether `images` is a mere look-up; otherwise it decodes and belongs into loader workers.
    """

    labels: Tensor
    columns: dict[str, Tensor]
    in_memory: bool = True

    def __len__(self) -> int:
        return len(self.labels)

    @abstractmethod
    def images(self, index: Tensor) -> Tensor:
        """Return the images at ``index`` (int64 ``[B]``) as uint8 ``[B, 3, H, W]``, all of one size."""


class TensorRows(Rows):
    """Rows that sit in memory as one uint8 tensor ``[N, 3, H, W]``.

    Raises:
        ValueError: If shapes or types are others, or if lengths differ.
    """

    def __init__(self, images: Tensor, labels: Tensor, columns: dict[str, Tensor] | None = None) -> None:
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3:
            raise ValueError(
                f"Expected images as uint8 [N, 3, H, W], got {images.dtype} {list(images.shape)}. Scale to 0..255 and "
                "repeat grey channels first."
            )
        self.columns = dict(columns or {})
        for name, column in {"labels": labels, **self.columns}.items():
            if column.shape != images.shape[:1]:
                raise ValueError(f"Expected {name} of shape [{len(images)}], got {list(column.shape)}.")
        self.pixels = images
        self.labels = labels

    def images(self, index: Tensor) -> Tensor:
        """Look up rows."""
        return self.pixels.index_select(0, index)


class Source(ABC):
    """Images in two parts, which are read when asked for and kept.

    Attributes:
        class_names: Names in the order of the labels.
        image_size: Height and width of every image.
    """

    @property
    @abstractmethod
    def class_names(self) -> tuple[str, ...]:
        """Names in the order of the labels."""

    @property
    @abstractmethod
    def image_size(self) -> tuple[int, int]:
        """Height and width of every image."""

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    def prepare(self) -> None:  # noqa: B027 - most sources have nothing to download
        """Download what is missing, nothing else. Runs in one process only."""

    def train(self) -> Rows:
        """Return the training part."""
        return self._part("train")

    def test(self) -> Rows:
        """Return the test part."""
        return self._part("test")

    @abstractmethod
    def fingerprint(self) -> str:
        """Return a hexadecimal digest that changes whenever images, labels or class names do."""

    @abstractmethod
    def _load(self, part: Part) -> Rows:
        """Read one part; called once."""

    def _part(self, part: Part) -> Rows:
        kept: dict[Part, Rows] = self.__dict__.setdefault("_parts", {})
        if part not in kept:
            kept[part] = self._load(part)
        return kept[part]


class DelegatedSource(Source):
    """A source that finds out, when first used, which other source has its images."""

    @abstractmethod
    def _find(self) -> Source:
        """Choose the source; raises ``FileNotFoundError`` with the places looked at."""

    @property
    def found(self) -> Source:
        """The source that has the images."""
        if "_found" not in self.__dict__:
            self._found = self._find()
        return self._found

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names in the order of the labels."""
        return self.found.class_names

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of every image."""
        return self.found.image_size

    def fingerprint(self) -> str:
        """Return the digest of the source found."""
        return self.found.fingerprint()

    def _load(self, part: Part) -> Rows:
        return self.found.train() if part == "train" else self.found.test()


def check_labels(labels: Tensor, num_classes: int, where: str) -> Tensor:
    """Return labels as int64 ``[N]`` if each names a class.

    Args:
        labels: Whole numbers of any integer type.
        num_classes: Labels go from 0 to ``num_classes - 1``.
        where: What they belong to, for the error: a file, a part.

    Raises:
        ValueError: If a label is no integer or out of range; names the first such row.
    """
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool or labels.ndim != 1:
        raise ValueError(f"{where}: expected integer labels [N], got {labels.dtype} {list(labels.shape)}.")
    labels = labels.to(torch.int64)
    wrong = ((labels < 0) | (labels >= num_classes)).nonzero()
    if len(wrong):
        row = int(wrong[0])
        raise ValueError(
            f"{where}, row {row}: label {int(labels[row])} is out of range; {num_classes} classes have the labels 0 "
            f"to {num_classes - 1}. Correct the label or give as many class names."
        )
    return labels


def numbers(count: int) -> tuple[str, ...]:
    """Return what classes are called whose names are not known: ``"0"``, ``"1"``, ...

    Raises:
        ValueError: If there would be more than a million, as where labels are numbers of another kind.
    """
    if count > _MOST_CLASSES:
        raise ValueError(f"Expected labels that count classes from 0 on, got {count - 1} as the largest.")
    return tuple(map(str, range(count)))


def distinct(names: Sequence[str]) -> tuple[str, ...]:
    """Return class names as a tuple.

    Raises:
        ValueError: If there is none, or one is named twice.
    """
    given = tuple(map(str, names))
    twice = [name for number, name in enumerate(given) if name in given[:number]]
    if twice or not given:
        raise ValueError(f"Expected names of classes, each once, got {f'{twice[0]!r} twice' if twice else 'none'}.")
    return given


def size_pair(size: int | Sequence[int]) -> tuple[int, int]:
    """Return height and width of a size given as one side of a square or as a pair.

    Raises:
        ValueError: If it is neither, not positive, or larger than any net takes.
    """
    pair = tuple(size) if isinstance(size, Sequence) else (size, size)
    if len(pair) != 2 or any(type(side) is not int or not 1 <= side <= _LARGEST_SIDE for side in pair):
        raise ValueError(
            f"Expected size as a number of pixels, or [height, width], up to {_LARGEST_SIDE:,}, got {size!r}."
        )
    return pair[0], pair[1]


def digest(*items: object) -> str:
    """Hash tensors (type, shape, content), bytes and anything with a stable ``repr`` to 32 hexadecimal digits."""
    total = hashlib.sha256()
    for item in items:
        if isinstance(item, Tensor):
            total.update(f"{item.dtype}{list(item.shape)}".encode())
            total.update(item.detach().cpu().contiguous().numpy().data)
        else:
            total.update(item if isinstance(item, bytes) else repr(item).encode())
        total.update(b"\0")
    return total.hexdigest()[:32]
