"""A generator of warps, for triggers that shift pixels and change none."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lit_backdoor.functional.warp import resample
from lit_backdoor.recipe import Recorded

__all__ = ["WarpField"]


class WarpField(Recorded, nn.Module):
    """Warp every image along one learned, smooth field, as WaNet does.

    An inversion by a generator of pixels does not find a warp: what it changes depends on the edges of each image, and
    other changes of the same size move features as well. Takes and gives images ``[B, C, H, W]`` in [0, 1] of any size,
    as `UNet` does; a shift reaches no farther than the border.

    Args:
        grid: Points per side at which the field is learned; it is bicubic between them.
        reach: Largest shift, as a share of the image's side.
        gain: Factor on the field's raw form, so that it learns as fast as a U-Net does.

    Raises:
        ValueError: If the grid has fewer than 2 points per side, or the reach is not positive.
    """

    def __init__(self, grid: int = 4, reach: float = 0.08, gain: float = 50.0) -> None:
        super().__init__()
        if grid < 2 or not reach > 0:
            raise ValueError(f"Expected a grid of at least 2 points and a positive reach, got {grid} and {reach}.")
        self.reach, self.gain = reach, gain
        self.raw = nn.Parameter(torch.randn(1, 2, grid, grid) / gain)  # not zero: an inversion has no gradient there

    def field(self, height: int, width: int) -> Tensor:
        """Give the shifts of (x, y) as shares of the image's sides, ``[1, H, W, 2]``."""
        raw = F.interpolate(self.gain * self.raw.float(), (height, width), mode="bicubic", align_corners=True)
        return self.reach * raw.tanh().permute(0, 2, 3, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Warp the images."""
        height, width = images.shape[-2:]
        rows, columns = (torch.linspace(-1, 1, size, device=images.device) for size in (height, width))
        places = torch.stack(torch.meshgrid(columns, rows, indexing="xy"), -1)
        grid = (places + 2 * self.field(height, width)).clamp(-1, 1)
        return resample(images, grid.expand(len(images), -1, -1, -1), align_corners=True)
