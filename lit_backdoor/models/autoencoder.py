"""An encoder and the decoder that mirrors it."""

from __future__ import annotations

from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn

from lit_backdoor.models.encoder import Encoder
from lit_backdoor.recipe import Recorded

__all__ = ["AutoEncoder", "Decoder"]


class AutoEncoder(Recorded, nn.Module):
    """An encoder with a decoder that turns its maps back into images (MARTINI, Tao et al., step 1).

    The decoder is built from the shapes of the encoder's maps: it doubles the side as often as the encoder halves it.
    Both are trained for images of one size.

    Args:
        encoder: The encoder.
        size: Side of the images in pixels.
        width: Channels of the decoder.

    Raises:
        ValueError: If the encoder does not take images of this size, or changes it by another factor than a power of
            two.
    """

    def __init__(self, encoder: Encoder, size: int = 32, width: int = 32) -> None:
        super().__init__()
        self.size = size
        self.map_shape = maps, height, _ = encoder.map_shape(size)
        ups = max((size // height).bit_length() - 1, 0)
        if self.map_shape[1:] != (size >> ups, size >> ups) or size % (1 << ups):
            raise ValueError(
                "Expected an encoder that keeps or halves the side of images, which a decoder can mirror, got maps of "
                f"{height}x{self.map_shape[2]} for images of {size}x{size}. Cut it at another layer, or use images of "
                "another size, such as a power of two."
            )
        self.encoder = encoder
        self.decoder = Decoder(maps, ups, width, encoder.channels)

    def encode(self, images: Tensor) -> Tensor:
        """Give the maps of images.

        Raises:
            ValueError: If the images are not of the size that the decoder is for.
        """
        if images.shape[-2:] != (self.size, self.size):
            raise ValueError(
                f"Expected images of {self.size}x{self.size} px, for which the decoder was trained, got "
                f"{images.shape[-2]}x{images.shape[-1]}. Train a decoder for that size."
            )
        return cast(Tensor, self.encoder(images))

    def decode(self, maps: Tensor) -> Tensor:
        """Give the images in [0, 1] of maps."""
        return cast(Tensor, self.decoder(maps))

    def forward(self, images: Tensor) -> Tensor:
        """Give the reconstructed images, in [0, 1]."""
        return self.decode(self.encode(images))


class Decoder(nn.Module):
    """From feature maps to images: 3x3 convolutions, each but the first two after a doubling of the side.

    Args:
        maps: Channels of the maps.
        ups: Number of doublings.
        width: Channels in between.
        channels: Channels of the images.
    """

    def __init__(self, maps: int, ups: int, width: int, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(maps, width, 3, padding=1)
        self.rest = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(ups))
        self.last = nn.Conv2d(width, channels, 3, padding=1)

    def forward(self, maps: Tensor) -> Tensor:
        """Give images in [0, 1], ``[B, C, 2**ups * H', 2**ups * W']``."""
        x = self.first(maps).relu()
        for layer in self.rest:
            x = layer(F.interpolate(x, scale_factor=2, mode="nearest")).relu()
        return cast(Tensor, self.last(x).sigmoid())
