"""Triggers that an inversion found: plain patterns, whose tensors a bundle keeps beside their shapes."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from lit_backdoor.functional.trigger_inversion import LEAST, add_change, stamp_mask
from lit_backdoor.triggers.base import Trigger

__all__ = ["AddedPattern", "MaskedPattern", "OneOf"]


class MaskedPattern(Trigger):
    """Blend a pattern in through a mask: what Neural Cleanse inverts.

    Both begin at zero, a trigger that does nothing; `holding` fills them.

    Args:
        channels: Channels of the images.
        height: Their height in pixels.
        width: Their width in pixels.
    """

    mask: Tensor
    pattern: Tensor

    def __init__(self, channels: int, height: int, width: int) -> None:
        super().__init__()
        self.register_buffer("mask", torch.zeros(1, height, width))
        self.register_buffer("pattern", torch.zeros(channels, height, width))

    @classmethod
    def holding(cls, mask: Tensor, pattern: Tensor) -> MaskedPattern:
        """Make the trigger of a mask ``[1, H, W]`` and a pattern ``[C, H, W]``, both in [0, 1]; they are copied."""
        made = cls(*pattern.shape)
        made.mask.copy_(mask.detach())
        made.pattern.copy_(pattern.detach())
        return made.to(pattern.device)

    def forward(self, images: Tensor, index: Tensor | None = None) -> Tensor:
        """Stamp images; the row does not matter."""
        _check_size(images, self.pattern)
        return stamp_mask(images, self.mask[None], self.pattern[None])[0].to(images.dtype)


class AddedPattern(Trigger):
    """Add a signed pattern: what Pixel inverts.

    It begins at zero, a trigger that does nothing; `holding` fills it.

    Args:
        channels: Channels of the images.
        height: Their height in pixels.
        width: Their width in pixels.
    """

    change: Tensor

    def __init__(self, channels: int, height: int, width: int) -> None:
        super().__init__()
        self.register_buffer("change", torch.zeros(channels, height, width))

    @classmethod
    def holding(cls, change: Tensor, least: float = LEAST) -> AddedPattern:
        """Make the trigger of a change ``[C, H, W]`` in [-1, 1], whose values below ``least`` become zero."""
        made = cls(*change.shape).to(change.device)
        made.change.copy_(change.detach() * (change.detach().abs() >= least))
        return made

    def forward(self, images: Tensor, index: Tensor | None = None) -> Tensor:
        """Stamp images; the row does not matter."""
        _check_size(images, self.change)
        return add_change(images, self.change[None])[0].to(images.dtype)


class OneOf(Trigger):
    """Stamp each image with one of several triggers, chosen by its index; without one, by its place in the batch.

    The index is hashed for the choice, so that every class sees every trigger even where classes alternate by row.

    Args:
        triggers: The triggers.

    Raises:
        ValueError: If there is none.
    """

    def __init__(self, triggers: list[Trigger]) -> None:
        super().__init__()
        if not triggers:
            raise ValueError("Expected at least one trigger to stamp with, got none.")
        self.triggers = nn.ModuleList(triggers)

    def forward(self, images: Tensor, index: Tensor | None = None) -> Tensor:
        """Stamp images."""
        index = torch.arange(len(images), device=images.device) if index is None else index.to(images.device)
        turn = ((index * 2654435761 >> 16) % len(self.triggers)).view(-1, 1, 1, 1)  # Knuth's multiplicative hash
        stamped = images
        for number, trigger in enumerate(self.triggers):
            stamped = torch.where(turn == number, cast(Tensor, trigger(images, index)), stamped)
        return stamped


def _check_size(images: Tensor, pattern: Tensor) -> None:
    if images.shape[1:] != pattern.shape:
        raise ValueError(
            f"Expected images of the size that the trigger was inverted at, {list(pattern.shape)}, got "
            f"{list(images.shape[1:])}. Invert it at that size."
        )
