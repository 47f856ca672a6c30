"""Adap-Patch: one faint patch of several in training, some of them together at test time."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from lit_backdoor.errors import check_share
from lit_backdoor.triggers.base import Trigger
from lit_backdoor.triggers.pattern import uniform_per_index

__all__ = ["AdapPatch"]


class AdapPatch(Trigger):
    """Put one of several patches on each planted row, faintly, and a few together, in full, at test time.

    Qi et al., "Revisiting the Assumption of Latent Separability for Backdoor Defenses", ICLR 2023. Covers are stamped
    as poisoned rows are and keep their true label. The paper's patches are pictures; any trigger may be given.

    Args:
        patches: The triggers.
        alphas: Weight of each in training, in (0, 1].
        together: Positions of those that are combined at test time.
        seed: Seed of each row's choice.

    Raises:
        ValueError: If the arguments do not fit each other, or a weight is out of range.
    """

    def __init__(self, patches: list[Trigger], alphas: list[float], together: list[int], seed: int = 0) -> None:
        super().__init__()
        if not patches or len(patches) != len(alphas):
            raise ValueError(f"Expected a weight for each patch, got {len(patches)} patches and {len(alphas)} alphas.")
        if not together or not all(0 <= number < len(patches) for number in together):
            raise ValueError(f"Expected patches from 0 to {len(patches) - 1} to be put together, got {together}.")
        self.patches = nn.ModuleList(patches)
        self.alphas = [check_share("an alpha of AdapPatch", alpha, closed=True) for alpha in alphas]
        self.together, self.seed = list(together), seed

    def forward(self, images: Tensor, index: Tensor) -> Tensor:
        """Put the patches of test time on the images."""
        for number in self.together:
            images = cast(Tensor, self.patches[number](images, index))
        return images

    def poison(self, images: Tensor, index: Tensor) -> Tensor:
        """Put each row's own patch on it, faintly."""
        drawn = (uniform_per_index(index, 1, self.seed) * len(self.patches)).long().view(-1, 1, 1, 1)
        stamped = images
        for number, (patch, alpha) in enumerate(zip(self.patches, self.alphas, strict=True)):
            faint = images + alpha * (patch(images, index) - images)
            stamped = torch.where(drawn == number, faint.clamp(0, 1), stamped)
        return stamped

    def cover(self, images: Tensor, index: Tensor) -> Tensor:
        """Stamp as `poison` does."""
        return self.poison(images, index)
