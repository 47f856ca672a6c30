"""Images that are tensors already."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor

from lit_backdoor.data.sources.base import Part, Rows, Source, TensorRows, check_labels, digest, numbers

__all__ = ["TensorSource"]

Array = Tensor | npt.NDArray[Any]


class TensorSource(Source):
    """A source made of tensors, or numpy arrays, in memory.

    Args:
        train: Images uint8 ``[N, 3, H, W]`` and integer labels ``[N]``.
        test: The same for the test part, images of the same size.
        class_names: Names in the order of the labels; numbers up to the largest label where None.

    Raises:
        ValueError: If shapes, types, image sizes or labels are wrong.
    """

    def __init__(
        self, train: tuple[Array, Array], test: tuple[Array, Array], class_names: Sequence[str] | None = None
    ) -> None:
        given: tuple[tuple[Part, tuple[Array, Array]], ...] = (("train", train), ("test", test))
        parts = {part: (torch.as_tensor(images), torch.as_tensor(labels)) for part, (images, labels) in given}
        if class_names is None:
            class_names = numbers(max(int(labels.max()) if len(labels) else -1 for _, labels in parts.values()) + 1)
        self._class_names = tuple(class_names)
        self._given: dict[Part, TensorRows] = {}
        for part, (images, labels) in parts.items():
            self._given[part] = TensorRows(images, check_labels(labels, len(class_names), f"{part} labels"))
        height, width = parts["train"][0].shape[2:]
        if parts["test"][0].shape[2:] != (height, width):
            raise ValueError(
                f"Expected test images of the training images' size {height}x{width}, got "
                f"{test[0].shape[2]}x{test[0].shape[3]}."
            )
        self._image_size = (height, width)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names in the order of the labels."""
        return self._class_names

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of every image."""
        return self._image_size

    def fingerprint(self) -> str:
        """Hash images, labels and names."""
        rows = [self._given["train"], self._given["test"]]
        return digest("tensors", *(item for part in rows for item in (part.pixels, part.labels)), self._class_names)

    def _load(self, part: Part) -> Rows:
        return self._given[part]
