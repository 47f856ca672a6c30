"""WaNet: a smooth, fixed warping field."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from lit_backdoor.functional.warp import resample
from lit_backdoor.triggers.pattern import FixedPattern, uniform_per_index

__all__ = ["WaNet"]


class WaNet(FixedPattern):
    """Warp images along a smooth field; cover samples get random noise on top of it ("noise mode").

    Nguyen & Tran, "WaNet: Imperceptible Warping-Based Backdoor Attack", ICLR 2021, Eqs. 3 to 5. The field is a
    ``k x k`` draw of U[-1, 1], divided by its mean magnitude, brought to the image's size (bicubic) and added to the
    identity grid, scaled by ``s / size``: shifts of about ``s / 2`` pixels. The paper draws a cover's noise anew in
    every batch; here it is a function of the row's index, as in data poisoning. The paper's random crop and rotation
    belong to the augmentation.

    Args:
        k: Side of the control grid.
        s: Strength of the warp.
        grid_rescale: Factor on the grid before it is clipped to [-1, 1].
        seed: Seed of the field and of the covers' noise.

    Raises:
        ValueError: If k < 2 or s is not positive.
    """

    def __init__(self, k: int = 4, s: float = 0.5, grid_rescale: float = 1.0, seed: int = 0) -> None:
        super().__init__()
        if k < 2 or s <= 0:
            raise ValueError(f"Expected k of WaNet to be at least 2 and s to be positive, got k={k}, s={s}.")
        self.k, self.s, self.grid_rescale, self.seed = k, s, grid_rescale, seed

    def make_pattern(self, channels: int, height: int, width: int) -> Tensor:
        """Make the grid, ``[1, height, width, 2]`` of (x, y) in [-1, 1]."""
        generator = torch.Generator().manual_seed(self.seed)
        field = torch.rand(1, 2, self.k, self.k, generator=generator) * 2 - 1
        field = field / field.abs().mean()
        field = F.interpolate(field, size=(height, width), mode="bicubic", align_corners=True).permute(0, 2, 3, 1)
        rows, columns = torch.linspace(-1, 1, height), torch.linspace(-1, 1, width)
        identity = torch.stack(torch.meshgrid(rows, columns, indexing="ij")[::-1], dim=-1)
        grid = identity + self.s * field / torch.tensor([width, height])
        return (grid * self.grid_rescale).clamp(-1, 1)

    def forward(self, images: Tensor, index: Tensor) -> Tensor:
        """Warp the images."""
        grid = self.pattern(images).expand(len(images), -1, -1, -1)
        return resample(images, grid, align_corners=True)

    def cover(self, images: Tensor, index: Tensor) -> Tensor:
        """Warp the images along the field plus noise, U[-1, 1] / size at each pixel, the same for the same index."""
        height, width = images.shape[-2:]
        noise = uniform_per_index(index, height * width * 2, self.seed).mul_(2).sub_(1).view(-1, height, width, 2)
        noise[..., 0].div_(width)
        noise[..., 1].div_(height)
        return resample(images, (self.pattern(images) + noise).clamp_(-1, 1), align_corners=True)
