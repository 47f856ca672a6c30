"""Synthetic traffic signs: a small, hard enough data set that needs no download."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from lit_backdoor.data.sources.base import Part, Rows, Source, TensorRows, digest
from lit_backdoor.data.sources.files import cached_pixels
from lit_backdoor.data.sources.sign_scenes import CHUNK, photograph
from lit_backdoor.data.sources.sign_shapes import SIGN_NAMES

__all__ = ["SyntheticSigns"]

_MOST_BYTES = 2**32
_VERSION = 1  # to be raised whenever the same seed gives other pixels


class SyntheticSigns(Source):
    """Pictures of traffic signs, drawn from a seed in seconds.

    Signs share shapes and colors (four red rings, four warning triangles, four blue discs, ...) and differ by
    glyph; pose, background, occlusion, light, blur and noise vary. Training and test rows are independent draws,
    classes are balanced and rows shuffled.

    Args:
        num_classes: How many of the 43 signs, the first ones, at least 2.
        train_per_class: Training images per class.
        test_per_class: Test images per class.
        size: Side of the images in pixels, at least 8.
        seed: Decides every pixel; the same on every machine.

    Raises:
        ValueError: If an argument is out of range.
    """

    def __init__(
        self,
        num_classes: int = 16,
        train_per_class: int = 375,
        test_per_class: int = 125,
        size: int = 32,
        seed: int = 0,
    ) -> None:
        if not 2 <= num_classes <= len(SIGN_NAMES):
            raise ValueError(f"Expected num_classes from 2 to {len(SIGN_NAMES)}, got {num_classes}.")
        if min(train_per_class, test_per_class) < 1 or size < 8 or seed < 0:
            raise ValueError(
                "Expected train_per_class and test_per_class of at least 1, size of at least 8 and seed of at least 0, "
                f"got {train_per_class}, {test_per_class}, {size} and {seed}."
            )
        if (count := 3 * size**2 * num_classes * max(train_per_class, test_per_class)) > _MOST_BYTES:
            raise ValueError(
                f"Expected signs that fit into {_MOST_BYTES:,} bytes, since they are drawn at once, got {count:,}: "
                f"{num_classes} classes of {max(train_per_class, test_per_class)} images of {size} pixels a side."
            )
        self._per_class: dict[Part, int] = {"train": train_per_class, "test": test_per_class}
        self._num_classes, self._size, self._seed = num_classes, size, seed

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the signs."""
        return SIGN_NAMES[: self._num_classes]

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of every image."""
        return self._size, self._size

    def fingerprint(self) -> str:
        """Hash the arguments, which decide all, and the version of the drawing."""
        return digest("signs", _VERSION, self._num_classes, sorted(self._per_class.items()), self._size, self._seed)

    def _load(self, part: Part) -> Rows:
        """Draw a part, or take it from the cache folder: drawing takes seconds, and every stage of a chain asks."""
        stream = (self._seed, ("train", "test").index(part))
        order = np.random.Generator(np.random.PCG64(np.random.SeedSequence((*stream, 0))))
        labels = np.repeat(np.arange(self._num_classes), self._per_class[part])
        labels = labels[np.argsort(order.random(len(labels)), kind="stable")]

        def draw() -> Tensor:
            images = np.empty((len(labels), 3, self._size, self._size), np.uint8)
            for number, start in enumerate(range(0, len(labels), CHUNK)):
                rows = slice(start, start + CHUNK)
                images[rows] = photograph(labels[rows], self._num_classes, self._size, (*stream, 1, number))
            return torch.from_numpy(images)

        key = digest("signs", _VERSION, self._num_classes, self._per_class[part], self._size, stream)
        return TensorRows(cached_pixels(key, len(labels), draw, least=CHUNK), torch.from_numpy(labels))
