"""Augmentation of whole batches on the device, after the trigger; it sees what the attacker did to each row."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor
from torch.nn import functional as F

from lit_backdoor.recipe import Recorded
from lit_backdoor.triggers.base import Role

__all__ = ["Augment", "ByRole", "CropFlip", "NoAugment"]

_MOST_PADDING = 512


class Augment(Recorded, ABC):
    """Changes training images, each row on its own."""

    @abstractmethod
    def __call__(self, images: Tensor, roles: Tensor, generator: torch.Generator) -> Tensor:
        """Augment a batch.

        Args:
            images: Float ``[B, C, H, W]`` in [0, 1].
            roles: The rows' `Role`, int8 ``[B]``, on the images' device.
            generator: Source of every draw, on the CPU, so that all devices draw the same.

        Returns:
            Images of the same shape, dtype and device.
        """


class NoAugment(Augment):
    """Leaves images as they are."""

    def __call__(self, images: Tensor, roles: Tensor, generator: torch.Generator) -> Tensor:
        """Give the images back."""
        return images


class CropFlip(Augment):
    """Random crop from the zero-padded image, then a horizontal flip with probability 1/2 (He et al. 2016, sec. 4.2).

    Args:
        padding: Zero pixels added on each side; 0 for no crop.
        flip: Whether to flip (wrong for traffic signs and digits).

    Raises:
        ValueError: If the padding is negative, or so large that it would fill the memory.
    """

    def __init__(self, padding: int = 4, flip: bool = True) -> None:
        if not 0 <= padding <= _MOST_PADDING:
            raise ValueError(f"Expected a padding from 0 to {_MOST_PADDING} pixels, got {padding}.")
        self.padding = padding
        self.flip = flip

    def __call__(self, images: Tensor, roles: Tensor, generator: torch.Generator) -> Tensor:
        """Crop and flip the whole batch by one gather."""
        count, channels, height, width = images.shape
        offset = torch.randint(2 * self.padding + 1, (2, count, 1), generator=generator)
        mirrored = torch.rand(count, 1, generator=generator) < 0.5
        across = torch.arange(width)
        rows = offset[0] + torch.arange(height)
        columns = offset[1] + (torch.where(mirrored, across.flip(0), across) if self.flip else across)
        # The small factors of the index travel, not the index itself.
        rows, columns = (part.to(images.device, non_blocking=True) for part in (rows, columns))
        places = (rows[:, :, None] * (width + 2 * self.padding) + columns[:, None, :]).view(count, 1, height * width)
        padded = F.pad(images, [self.padding] * 4).flatten(2)
        return padded.gather(2, places.expand(-1, channels, -1)).view_as(images)


class ByRole(Augment):
    """Gives clean, poisoned and cover rows an augmentation each; all must keep the images' size.

    Args:
        clean: For the clean rows; None leaves them.
        poison: For the poisoned rows; None leaves them.
        cover: For the cover samples; None leaves them.
    """

    def __init__(
        self, clean: Augment | None = None, poison: Augment | None = None, cover: Augment | None = None
    ) -> None:
        self.by_role = {Role.CLEAN: clean, Role.POISON: poison, Role.COVER: cover}

    def __call__(self, images: Tensor, roles: Tensor, generator: torch.Generator) -> Tensor:
        """Run each augmentation over the whole batch and keep its rows: no row is looked up on the host."""
        out = images
        for role, augment in self.by_role.items():
            if augment is not None:
                out = torch.where((roles == role).view(-1, 1, 1, 1), augment(images, roles, generator), out)
        return out
