"""Encoders: from images to feature maps that a decoder can turn back into images."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, cast

import torch
from torch import Tensor, nn

from lit_backdoor.models.base import evaluating
from lit_backdoor.recipe import Recorded

__all__ = ["ConvEncoder", "Encoder"]


class Encoder(Recorded, nn.Module, ABC):
    """From images ``[B, C, H, W]`` in [0, 1] to feature maps; the normalization is part of the encoder.

    Attributes:
        learned: Whether the encoder is trained together with its decoder; if not, it comes trained and stays frozen.
        channels: Channels of the images.
    """

    learned: ClassVar[bool] = False
    channels: int = 3

    @abstractmethod
    def forward(self, images: Tensor) -> Tensor:
        """Give the feature maps, ``[B, C', H', W']``."""

    def map_shape(self, size: int) -> tuple[int, int, int]:
        """Give the shape of one image's maps, ``(C', H', W')``, for images of ``size`` x ``size`` px.

        Raises:
            ValueError: If the encoder does not take images of this size, or its output is not maps.
        """
        try:
            with evaluating(self):
                shape = list(self(torch.zeros(1, self.channels, size, size)).shape)
        except (RuntimeError, ValueError, AssertionError) as error:
            raise ValueError(
                f"Expected images large enough for {type(self).__name__}, got {size}x{size} px: "
                f"{str(error).splitlines()[0]} Use larger images, or cut the encoder at an earlier layer."
            ) from error
        if len(shape) != 4 or 0 in shape:
            raise ValueError(
                f"Expected {type(self).__name__} to give feature maps [B, C, H, W], got {shape} for {size}x{size} px. "
                "Cut it at an earlier layer."
            )
        return shape[1], shape[2], shape[3]


class ConvEncoder(Encoder):
    """A small convolutional encoder that is trained with its decoder: nothing to download or install.

    Args:
        width: Channels of the maps.
        downs: Number of halvings.
        channels: Channels of the images.

    Raises:
        ValueError: If a number is too small.
    """

    learned: ClassVar[bool] = True

    def __init__(self, width: int = 32, downs: int = 1, channels: int = 3) -> None:
        super().__init__()
        if min(width, channels) < 1 or downs < 0:
            raise ValueError(f"Expected width, channels >= 1 and downs >= 0, got {width}, {channels} and {downs}.")
        self.channels = channels
        layers: list[nn.Module] = [nn.Conv2d(channels, width, 3, padding=1)]
        for _ in range(downs):
            layers += [nn.ReLU(), nn.Conv2d(width, width, 3, stride=2, padding=1)]
        self.layers = nn.Sequential(*layers, nn.ReLU())

    def forward(self, images: Tensor) -> Tensor:
        """Give the maps, ``[B, width, H / 2**downs, W / 2**downs]``."""
        return cast(Tensor, self.layers(2 * images - 1))
