"""Dynamic backdoors: a net draws another small pattern at another place for each row."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lit_backdoor.triggers.base import Trigger
from lit_backdoor.triggers.pattern import uniform_per_index

__all__ = ["DynamicPatch"]

_PLACE = 0x706C6163  # "plac" in ASCII, added to the seed of the places


class DynamicPatch(Trigger):
    """Replace a square at a random place by what a net makes of random numbers: ``t = (g(z) + n) / 2``.

    Salem et al., "Dynamic Backdoor Attacks Against Machine Learning Models", EuroS&P 2022 (BaN). z and n are uniform in
    [0, 1], the place is a cell of a grid of the square's size; all are functions of the row's index. The net begins
    untrained.

    Args:
        size: Side of the square in pixels.
        latent: Random numbers that a pattern is made of.
        width: Units of the net's hidden layers.
        channels: Channels of the images.
        seed: Seed of random numbers and places.

    Raises:
        ValueError: If a size is not positive, or (on call) no square fits the images.
    """

    def __init__(self, size: int = 5, latent: int = 100, width: int = 64, channels: int = 3, seed: int = 0) -> None:
        super().__init__()
        if min(size, latent, width, channels) < 1:
            raise ValueError(
                f"Expected size, latent, width and channels of at least 1, got {size}, {latent}, {width}, {channels}."
            )
        self.size, self.latent, self.seed = size, latent, seed
        self.shape = (channels, size, size)
        self.generator = nn.Sequential(
            nn.Linear(latent, width),
            nn.ReLU(),
            nn.Linear(width, 2 * width),
            nn.ReLU(),
            nn.Linear(2 * width, channels * size**2),
            nn.Sigmoid(),
        )

    def patterns(self, index: Tensor) -> Tensor:
        """Give the patterns of rows, float32 ``[B, channels, size, size]`` in [0, 1]."""
        drawn = uniform_per_index(index, self.latent + self.shape[0] * self.size**2, self.seed)
        made: Tensor = self.generator(drawn[:, : self.latent]).float()
        return ((made + drawn[:, self.latent :]) / 2).view(-1, *self.shape)

    def forward(self, images: Tensor, index: Tensor) -> Tensor:
        """Put each row's pattern at its place; gradients flow to the net."""
        rows, columns = (side // self.size for side in images.shape[-2:])
        if not rows * columns:
            raise ValueError(f"Expected images of at least {self.size}x{self.size}, got {list(images.shape[-2:])}.")
        cell = (uniform_per_index(index, 1, self.seed + _PLACE)[:, 0] * rows * columns).long()
        offset = torch.arange(self.size, device=images.device)
        down, across = (self.size * place[:, None] + offset for place in (cell // columns, cell % columns))
        stamped, batch = images.clone(), torch.arange(len(images), device=images.device)
        stamped[batch[:, None, None], :, down[:, :, None], across[:, None]] = (
            self.patterns(index).to(images.dtype).permute(0, 2, 3, 1)
        )
        return stamped
