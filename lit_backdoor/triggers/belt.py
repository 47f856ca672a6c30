"""BELT: covers with an incomplete patch make a backdoor exclusive."""

from __future__ import annotations

import torch
from torch import Tensor

from lit_backdoor.errors import check_share
from lit_backdoor.triggers.patch import Patch
from lit_backdoor.triggers.pattern import chosen_per_index

__all__ = ["Belt"]


class Belt(Patch):
    """Replace a rectangle as `Patch` does; covers lack some of its pixels and keep their true label.

    Qiu et al., "BELT: Old-School Backdoor Attacks can Evade the State-of-the-Art Defense with Backdoor Exclusivity
    Lifting", S&P 2024. The data part of the attack; its center loss needs control of the training.

    Args:
        size: As in `Patch`.
        place: As in `Patch`.
        pattern: As in `Patch`.
        seed: Seed of the noise and of the pixels that each cover lacks.
        mask: As in `Patch`.
        dropped: Share of the patch's pixels that a cover lacks, in (0, 1].

    Raises:
        ValueError: If the share is out of range, or as `Patch` does.
    """

    def __init__(
        self,
        size: int | tuple[int, int] = 6,
        place: str | tuple[int, int] = (2, 2),
        pattern: str | tuple[float, float, float] = "noise",
        seed: int = 0,
        mask: str | None = None,
        dropped: float = 0.2,
    ) -> None:
        super().__init__(size, place, pattern, seed, mask)
        share = check_share("dropped of Belt", dropped, closed=True)
        self.dropped = max(1, round(share * self.height * self.width))

    def cover(self, images: Tensor, index: Tensor) -> Tensor:
        """Put the patch on the images but for each row's dropped pixels."""
        row, column = self.corner(images.shape[-2], images.shape[-1])
        area = (..., slice(row, row + self.height), slice(column, column + self.width))
        dropped = chosen_per_index(index, self.height * self.width, self.dropped, self.seed)
        stamped = self(images, index)
        stamped[area] = torch.where(dropped.view(-1, 1, self.height, self.width), images[area], stamped[area])
        return stamped
