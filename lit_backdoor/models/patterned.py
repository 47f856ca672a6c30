"""Generators that know where they are, for triggers that sit at a fixed place."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lit_backdoor.errors import check_share
from lit_backdoor.functional.masks import area_mask
from lit_backdoor.models.unet import UNet
from lit_backdoor.recipe import Recorded

__all__ = ["LocalPattern", "PatternedUNet", "WideAndLocal"]


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


class LocalPattern(Recorded, nn.Module):
    """Paint a learned pattern over a small part of every image, at one place: what a patch or a sticker is.

    The place is learned on a coarse grid, so that it is a blob, as a mask that covers a given share of the pixels.
    Takes and gives images ``[B, C, H, W]`` in [0, 1] of one size, as `UNet` does.

    Args:
        size: Side of the images in pixels.
        share: Share of the pixels that it covers, in (0, 1).
        grid: Cells per side of the grid.
        gain: Factor on the raw forms of place and pattern, so that they learn as fast as a U-Net does.
    """

    def __init__(self, size: int = 32, share: float = 0.03, grid: int = 8, gain: float = 100.0) -> None:
        super().__init__()
        self.size, self.share, self.gain = size, check_share("the share of pixels", share), gain
        self.raw_place = nn.Parameter(torch.randn(1, 1, grid, grid) * 0.1 / gain)
        self.raw_pattern = nn.Parameter(torch.randn(1, 3, size, size) * 0.1 / gain)

    def parts(self) -> tuple[Tensor, Tensor]:
        """Give the mask ``[1, 1, H, W]`` and the pattern ``[1, C, H, W]``, both in [0, 1]."""
        place = F.interpolate(4 * self.gain * self.raw_place, (self.size, self.size), mode="bilinear")
        return area_mask(place, self.share), (self.gain * self.raw_pattern).sigmoid()

    def forward(self, images: Tensor) -> Tensor:
        """Paint the images."""
        mask, pattern = self.parts()
        return images + mask.to(images) * (pattern.to(images) - images)

    def varied(self, images: Tensor) -> Tensor:
        """Paint half of the images or so at another place, and half in one color; no gradient flows.

        Draws come from torch's global generator of the CPU, and only they are copied to the images' device.
        """
        with torch.no_grad():
            stamp, count = torch.cat(self.parts(), 1)[0], len(images)
            shifts = torch.randint(self.size, (count, 2)) * torch.randint(2, (count, 1))
            plain, color = torch.rand(count, 1, 1, 1) < 0.5, torch.rand(count, 3, 1, 1)
            shifts, plain, color = (draw.to(stamp.device, non_blocking=True) for draw in (shifts, plain, color))
            places = (torch.arange(self.size, device=stamp.device) - shifts[..., None]) % self.size
            pixels = (places[:, 0, :, None] * self.size + places[:, 1, None, :]).flatten()
            stamps = stamp.flatten(1).index_select(1, pixels).view(4, *images[:, 0].shape).transpose(0, 1)
            mask, pattern = stamps[:, :1], stamps[:, 1:]
            pattern = torch.where(plain, color, pattern)
            return images + mask.to(images) * (pattern.to(images) - images)


class WideAndLocal(nn.Module):
    """Give every second image a `PatternedUNet`'s trigger, over the whole image, and the others a `LocalPattern`'s.

    Args:
        size: Side of the images in pixels.
        share: Share of the pixels that the local pattern covers, in (0, 1).
    """

    def __init__(self, size: int = 32, share: float = 0.03) -> None:
        super().__init__()
        self.wide = PatternedUNet(size)
        self.local = LocalPattern(size, share)

    def forward(self, images: Tensor) -> Tensor:
        """Make images of images, ``[B, C, H, W]`` in [0, 1]."""
        result = images.clone()
        result[::2] = self.wide(images[::2]).to(images.dtype)
        if len(images) > 1:
            result[1::2] = self.local(images[1::2])
        return result
