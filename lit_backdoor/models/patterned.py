"""U-Nets that know where they are, for triggers that sit at a fixed place: one makes them, one takes them off."""

from __future__ import annotations

from typing import Literal, cast

import torch
from torch import Tensor, nn

from lit_backdoor.models.unet import UNet

__all__ = ["PatternedUNet", "PlacedUNet"]


class PatternedUNet(UNet):
    """Add a learned pattern, the same for every image, then let a U-Net change what it sees.

    A U-Net alone knows where it is from the padding at the borders only, so it finds patches and global waves slowly.

    Args:
        size: Side of the images in pixels.
        base: Width of the U-Net at full size.
        downs: Number of halvings.
        attention: At the bottleneck.
        gain: Factor on the pattern's raw form, so that it learns that much faster than the U-Net.
    """

    def __init__(
        self,
        size: int = 32,
        base: int = 16,
        downs: int = 3,
        attention: Literal["spatial", "cbam", "none"] = "none",
        gain: float = 10.0,
    ) -> None:
        super().__init__(base, downs, attention, start="small")
        self.gain = gain
        # not zero, where the objective of an inversion has no gradient
        self.pattern = nn.Parameter(torch.randn(3, size, size) * 0.02 / gain)

    def forward(self, images: Tensor) -> Tensor:
        """Make images of images, ``[B, C, H, W]`` in [0, 1]."""
        return super().forward((images + (self.gain * self.pattern).tanh()).clamp(0, 1))


class PlacedUNet(UNet):
    """Add a learned map, the same for every image, to the first convolution's output: what may be done at each place.

    Not in the paper, whose purifier is a plain U-Net. Takes and gives images as `UNet` does, of one size.

    Args:
        size: Side of the images in pixels.
        base: Width of the U-Net at full size, and of the map.
        downs: Number of halvings.
        attention: At the bottleneck.
    """

    def __init__(
        self, size: int = 32, base: int = 16, downs: int = 3, attention: Literal["spatial", "cbam", "none"] = "none"
    ) -> None:
        super().__init__(base, downs, attention, start="small")
        side = -(-size // 2**downs) * 2**downs  # as it is padded inside
        cast(nn.Sequential, self.encoder[0]).insert(1, _Map(base, side))


class _Map(nn.Module):
    def __init__(self, width: int, side: int) -> None:
        super().__init__()
        self.map = nn.Parameter(torch.randn(width, side, side) * 0.1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.map.to(x.dtype)
