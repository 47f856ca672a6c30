"""Triggers that are made of a second image."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from lit_backdoor.triggers.base import Trigger

__all__ = ["PairedTrigger", "pair_generator"]

_STREAM = 0x70616972  # "pair" in ASCII, added to the seed of the draw


class PairedTrigger(Trigger):
    """A trigger that takes a partner image for each image, such as a mixture of two (composite) or a crossed trigger.

    `BackdoorDataModule` loads the partners of the rows that are stamped, at the images' size. They are a function of
    its seed and the row: the same in every epoch and for any number of processes or workers. A subclass writes
    `forward`, and `poison` and `cover` where they differ, with a third argument.
    """

    @abstractmethod
    def forward(self, images: Tensor, index: Tensor, partners: Tensor | None = None) -> Tensor:
        """Stamp images as at test time; ``partners`` are float images ``[B, C, H, W]`` in [0, 1]."""

    def poison(self, images: Tensor, index: Tensor, partners: Tensor | None = None) -> Tensor:
        """Stamp images as they are planted in the training set."""
        return self(images, index, partners)

    def cover(self, images: Tensor, index: Tensor, partners: Tensor | None = None) -> Tensor:
        """Stamp cover samples, which keep their true label."""
        return self(images, index, partners)

    def partners(self, labels: Tensor, planted: Tensor, seed: int) -> Tensor:
        """Choose each row's partner; by default another row, whatever its label.

        Args:
            labels: True labels of the rows to choose among, int64 ``[N]``.
            planted: Which of them are poisoned or, at test time, count in ASR, bool ``[N]``.
            seed: Decides every choice.

        Returns:
            Positions among the rows, int64 ``[N]``.
        """
        order = torch.randperm(len(labels), generator=pair_generator(seed))
        return torch.empty_like(order).index_copy_(0, order, order.roll(1))

    def given(self, partners: Tensor | None) -> Tensor:
        """Give the partners back.

        Raises:
            ValueError: If there are none.
        """
        if partners is None:
            raise ValueError(
                f"Expected a second image for each image that {type(self).__name__} stamps, got none. Give them as the "
                "third argument, or load the rows by BackdoorDataModule."
            )
        return partners


def pair_generator(seed: int) -> torch.Generator:
    """Make the generator that draws partners."""
    return torch.Generator().manual_seed(seed + _STREAM)
