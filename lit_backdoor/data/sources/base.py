"""What every source of images offers."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor

__all__ = ["Rows", "Source"]


class Rows(ABC):
    """One part (train or test) of a source.

    Attributes:
        labels: True labels, int64 ``[N]``.
        columns: Further facts about each row, by name, ``[N]`` each.
    """

    labels: Tensor
    columns: dict[str, Tensor]

    def __len__(self) -> int:
        return len(self.labels)

    @abstractmethod
    def images(self, index: Tensor) -> Tensor:
        """Give the images of some rows, uint8 ``[B, 3, H, W]``, all of one size."""


class Source(ABC):
    """A data set with a train and a test part.

    Attributes:
        class_names: The classes, in the order of their labels.
        image_size: Height and width in pixels.
    """

    class_names: tuple[str, ...]
    image_size: tuple[int, int]

    def prepare(self) -> None:  # noqa: B027 (most sources need nothing)
        """Download what is missing, and nothing else."""

    @abstractmethod
    def train(self) -> Rows:
        """Give the training part; cached."""

    @abstractmethod
    def test(self) -> Rows:
        """Give the test part; cached."""

    @abstractmethod
    def fingerprint(self) -> str:
        """Give a short text that changes when the data does."""
