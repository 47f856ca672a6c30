"""Nets that hide bits in images and read them again."""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lit_backdoor.errors import check_share
from lit_backdoor.recipe import Recorded

__all__ = ["SecretDecoder", "SecretEncoder"]

_SIDE = 8  # of the map that bits are spread over


class SecretEncoder(Recorded, nn.Module):
    """Change images so that a decoder reads bits from them, by at most a bound per pixel.

    The bits are spread over a small map by a linear layer, which is brought to the images' size and convolved with
    them: images may be of any size.

    Args:
        bits: Number of bits.
        width: Channels of the convolutions.
        bound: Largest change of a pixel, in (0, 1].
        channels: Channels of the images.

    Raises:
        ValueError: If an argument is out of range.
    """

    def __init__(self, bits: int = 20, width: int = 32, bound: float = 0.1, channels: int = 3) -> None:
        super().__init__()
        if min(bits, width, channels) < 1:
            raise ValueError(f"Expected bits, width and channels of at least 1, got {bits}, {width} and {channels}.")
        self.bits, self.channels = bits, channels
        self.bound = check_share("bound of SecretEncoder", bound, closed=True)
        self.spread = nn.Linear(bits, channels * _SIDE**2)
        self.first = nn.Conv2d(2 * channels, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        self.last = nn.Conv2d(width + 2 * channels, channels, 3, padding=1)

    def forward(self, images: Tensor, bits: Tensor) -> Tensor:
        """Hide bits, float ``[B, bits]`` of 0 and 1, in images ``[B, C, H, W]`` in [0, 1]."""
        spread = self.spread(bits - 0.5).relu().view(-1, self.channels, _SIDE, _SIDE)
        given = torch.cat((images - 0.5, F.interpolate(spread, images.shape[-2:], mode="bilinear")), 1)
        inner = self.second(self.first(given).relu()).relu()
        change: Tensor = self.last(torch.cat((inner, given), 1)).tanh().to(images.dtype)
        return (images + self.bound * change).clamp(0, 1)


class SecretDecoder(nn.Module):
    """Read bits from images of any size.

    Args:
        bits: Number of bits.
        width: Channels of the first convolution; the others have twice as many.
        channels: Channels of the images.
    """

    def __init__(self, bits: int = 20, width: int = 32, channels: int = 3) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, width, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, 2 * width, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(2 * width, 2 * width, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(4),
            nn.Flatten(),
            nn.Linear(32 * width, bits),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Give the logit of every bit, ``[B, bits]``."""
        return cast(Tensor, self.body(images - 0.5))
