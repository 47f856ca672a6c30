"""The two trainable layers of MARTINI's trigger: one for the images' statistics, one for their features."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lit_backdoor.functional.martini import renormalize
from lit_backdoor.functional.regional import identity_kernels, region_bounds, regional_conv, regions_per_side
from lit_backdoor.recipe import Recorded

__all__ = ["RegionalTransformation", "Renormalization"]


class Renormalization(Recorded, nn.Module):
    """Give all images the same channel statistics, which are learned (MARTINI's layer Γ, Tao et al., Eq. 1).

    Args:
        channels: Channels of the images.
        mean: The mean at the start, for every channel; `start_at` sets one per channel.
        std: The standard deviation at the start.
    """

    def __init__(self, channels: int = 3, mean: float = 0.5, std: float = 0.25) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.full((channels,), float(mean)))
        self.std = nn.Parameter(torch.full((channels,), float(std)))

    @torch.no_grad()
    def start_at(self, mean: Tensor, std: Tensor) -> None:
        """Begin at the average statistics of images, ``[C]`` each."""
        self.mean.copy_(mean)
        self.std.copy_(std)

    def forward(self, images: Tensor) -> Tensor:
        """Renormalize images ``[B, C, H, W]``; the result is not clipped."""
        return renormalize(images, self.mean, self.std)


class RegionalTransformation(Recorded, nn.Module):
    """Convolve every region of feature maps by kernels of its own (MARTINI's layer Ψ, Tao et al., Eq. 2 and 3).

    It starts as the identity.

    Args:
        channels: Channels of the maps.
        height: Height of the maps.
        width: Width of the maps.
        regions: Regions per side, z; None for the paper's rule (3 for maps of up to 32x32).
        kernel: Side of the kernels, m.

    Raises:
        ValueError: If there are more regions than positions on a side, or a number is not positive.
    """

    def __init__(self, channels: int, height: int, width: int, regions: int | None = None, kernel: int = 3) -> None:
        super().__init__()
        self.regions = regions_per_side(height, width) if regions is None else regions
        for size in (height, width):
            region_bounds(size, self.regions)
        self.kernels = nn.Parameter(identity_kernels(channels, self.regions, kernel))

    def forward(self, maps: Tensor) -> Tensor:
        """Transform maps ``[B, C, H, W]``."""
        return regional_conv(maps, self.kernels)
