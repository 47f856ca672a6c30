"""WaNet (Nguyen and Tran 2021) as data poisoning: a smooth warp, with noisily warped cover samples."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from lit_backdoor.triggers.base import Trigger
from lit_backdoor.triggers.patterns import row_noise

__all__ = ["WaNet"]


class WaNet(Trigger):
    """Warp the image by a smooth random field; covers get a noise of their own on top ("noise mode").

    The field is a k x k grid of uniform draws, divided by its mean size and enlarged bicubically, times s / H;
    images are sampled bilinearly at clip(identity + field, -1, 1). A cover's noise is drawn from (seed, row), so the
    same row is covered alike in every epoch: here the attacker only supplies data.

    Args:
        k: Side of the control grid.
        s: Strength of the warp, in half pixels of the [-1, 1] grid.
        seed: Seed of the field and of the covers' noise.

    Raises:
        ValueError: If k < 2 or s <= 0.
    """

    def __init__(self, k: int = 4, s: float = 0.5, seed: int = 0) -> None:
        super().__init__()
        if k < 2 or s <= 0:
            raise ValueError(f"Expected WaNet's k >= 2 and s > 0, got k={k} and s={s}.")
        self.k, self.s, self.seed = k, s, seed
        self._made: dict[tuple[int, int, torch.device], Tensor] = {}

    def forward(self, images: Tensor, index: Tensor) -> Tensor:
        """Warp by the common field."""
        return _sample(images, self.grid(images))

    def cover(self, images: Tensor, index: Tensor) -> Tensor:
        """Warp by the common field and a noise of the row's own, uniform in [-1, 1] / H."""
        height, width = images.shape[-2:]
        normal = row_noise(index, 2 * height * width, self.seed).view(-1, height, width, 2)
        noise = torch.erf(normal / 2**0.5)  # uniform in [-1, 1]
        return _sample(images, self.grid(images) + noise / height)

    def grid(self, images: Tensor) -> Tensor:
        """Give the sampling grid of the warp, ``[1, H, W, 2]`` in [-1, 1]."""
        height, width = images.shape[-2:]
        where = (height, width, images.device)
        if where not in self._made:
            draws = torch.rand(1, 2, self.k, self.k, generator=torch.Generator().manual_seed(self.seed)) * 2 - 1
            field = F.interpolate(draws / draws.abs().mean(), (height, width), mode="bicubic", align_corners=True)
            rows, columns = torch.linspace(-1, 1, height), torch.linspace(-1, 1, width)
            identity = torch.stack(torch.meshgrid(rows, columns, indexing="ij")[::-1], dim=-1)
            grid = (identity[None] + self.s * field.permute(0, 2, 3, 1) / height).clamp(-1, 1)
            self._made[where] = grid.to(images.device)
        return self._made[where]


def _sample(images: Tensor, grid: Tensor) -> Tensor:
    grid = grid.clamp(-1, 1).expand(len(images), -1, -1, -1)
    warped = F.grid_sample(images.float(), grid, align_corners=True)
    return warped.clamp(0, 1).to(images.dtype)
