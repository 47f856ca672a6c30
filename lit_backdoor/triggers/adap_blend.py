"""Adap-Blend: parts of a blended pattern in training, all of it at test time."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from lit_backdoor.errors import check_share
from lit_backdoor.triggers.blend import Blend
from lit_backdoor.triggers.pattern import chosen_per_index
from lit_backdoor.triggers.picture import overlay

__all__ = ["AdapBlend"]


class AdapBlend(Blend):
    """Blend half of a pattern's pieces into each planted row, and the whole pattern, stronger, at test time.

    Qi et al., "Revisiting the Assumption of Latent Separability for Backdoor Defenses", ICLR 2023. Covers are stamped
    as poisoned rows are and keep their true label, so that latents of poisoned rows stay near those of clean ones.

    Args:
        alpha: Weight of the pattern in training, in (0, 1].
        pattern: As in `Blend`.
        seed: Seed of the noise and of each row's pieces.
        mask: As in `Blend`.
        test_alpha: Weight of the pattern at test time, in (0, 1].
        side: The pattern is cut into ``side x side`` pieces.
        shown: Share of the pieces that a planted row gets, in (0, 1].

    Raises:
        ValueError: If an argument is out of range, or as `Blend` does.
    """

    def __init__(
        self,
        alpha: float = 0.15,
        pattern: str = "uniform",
        seed: int = 0,
        mask: str | None = None,
        test_alpha: float = 0.2,
        side: int = 4,
        shown: float = 0.5,
    ) -> None:
        super().__init__(alpha, pattern, seed, mask)
        if side < 1:
            raise ValueError(f"Expected AdapBlend to cut its pattern into at least 1 piece a side, got {side}.")
        self.test_alpha = check_share("test_alpha of AdapBlend", test_alpha, closed=True)
        self.side, self.shown = side, max(1, round(check_share("shown of AdapBlend", shown, closed=True) * side**2))

    def forward(self, images: Tensor, index: Tensor) -> Tensor:
        """Blend the whole pattern in."""
        return overlay(images, self.pattern(images), self.test_alpha)

    def poison(self, images: Tensor, index: Tensor) -> Tensor:
        """Blend each row's own pieces in."""
        pieces = chosen_per_index(index, self.side**2, self.shown, self.seed).view(-1, 1, self.side, self.side)
        shown = F.interpolate(pieces.float(), images.shape[-2:]) > 0
        return torch.where(shown, super().forward(images, index), images)

    def cover(self, images: Tensor, index: Tensor) -> Tensor:
        """Stamp as `poison` does."""
        return self.poison(images, index)
