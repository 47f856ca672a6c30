"""A stamp in a space that is learned, too."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from lit_backdoor.functional.decoupling import soft_mask
from lit_backdoor.models.unet import UNet
from lit_backdoor.recipe import Recorded

__all__ = ["SpaceStamp"]


class SpaceStamp(Recorded, nn.Module):
    r"""Bring images to another space, blend a pattern in through a mask there, and bring them back (Unicorn).

    .. math:: x' = Q\bigl((1 - m) \odot P(x) + m \odot t\bigr)

    Mask and pattern are `soft_mask` of raw tensors, which start at -1 and 0: a mask of .12, and gray.

    Args:
        encoder: P, image to image, both in [0, 1].
        decoder: Q, likewise.
        size: Side of the images in pixels.
        channels: Channels of the images.
    """

    def __init__(self, encoder: UNet, decoder: UNet, size: int, channels: int = 3) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder
        self.raw_mask = nn.Parameter(-torch.ones(channels, size, size))
        self.raw_pattern = nn.Parameter(torch.zeros(channels, size, size))

    @property
    def mask(self) -> Tensor:
        """The mask in (0, 1), ``[C, H, W]``."""
        return soft_mask(self.raw_mask)

    def forward(self, images: Tensor) -> Tensor:
        """Stamp images ``[B, C, H, W]`` in [0, 1].

        Raises:
            ValueError: If they are of another size.
        """
        if images.shape[1:] != self.raw_mask.shape:
            raise ValueError(
                f"Expected images of the stamp's size, {list(self.raw_mask.shape)}, got {list(images.shape[1:])}. "
                "Invert it at that size."
            )
        stamped = self.encoder(images) * (1 - self.mask) + self.mask * soft_mask(self.raw_pattern)
        return cast(Tensor, self.decoder(stamped))

    def unstamped(self, images: Tensor) -> Tensor:
        """Bring images to the other space and back: what should leave them as they are."""
        return cast(Tensor, self.decoder(self.encoder(images)))
