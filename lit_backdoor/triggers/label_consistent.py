"""Label-consistent: planted rows keep their label, since their own features are hard to use."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from lit_backdoor.errors import check_share
from lit_backdoor.triggers.learned import Learned

__all__ = ["LabelConsistent"]


class LabelConsistent(Learned):
    """Stamp a checker in every corner; planted rows are first made hard by an adversarial change of their own.

    Turner et al., "Label-Consistent Backdoor Attacks", 2019: white squares of the checker are raised by an amplitude,
    black ones lowered. At test time there is the checker alone. The changes, of rows by their index, are found on a
    surrogate; other rows have none.

    Args:
        size: Side of the checker in pixels.
        amplitude: What is added to and taken off pixels, in (0, 1]; 1 replaces them.

    Raises:
        ValueError: If an argument is out of range; on call, if the images have another size than those of the changes,
            or are too small.
    """

    found: ClassVar[tuple[str, ...]] = ("rows", "changes")
    rows: Tensor  # int64 [N], ascending
    changes: Tensor  # float16 [N, C, H, W]

    def __init__(self, size: int = 3, amplitude: float = 1.0) -> None:
        super().__init__()
        if size < 1:
            raise ValueError(f"Expected a checker of at least one pixel, got size {size}.")
        self.size, self.amplitude = size, check_share("amplitude of LabelConsistent", amplitude, closed=True)
        self.hold(rows=torch.empty(0, dtype=torch.int64), changes=torch.empty(0, 3, 1, 1, dtype=torch.float16))

    def hold_changes(self, index: Tensor, changes: Tensor) -> None:
        """Keep the changes ``[N, C, H, W]`` of rows, int64 ``[N]``, in half precision."""
        order = index.argsort()
        self.hold(rows=index[order], changes=changes[order].half())

    def forward(self, images: Tensor, index: Tensor) -> Tensor:
        """Stamp the corners."""
        if min(images.shape[-2:]) < 2 * self.size:
            raise ValueError(f"Expected images of at least {2 * self.size} px a side, got {list(images.shape[-2:])}.")
        side = torch.arange(self.size, device=images.device)
        checker = self.amplitude * (1 - 2 * ((side[:, None] + side) % 2)).to(images.dtype)
        stamped, corner = images.clone(), slice(self.size)
        for vertical in ((), (-2,)):
            for horizontal in ((), (-1,)):
                seen = stamped.flip((*vertical, *horizontal))
                seen[..., corner, corner] = (seen[..., corner, corner] + checker).clamp(0, 1)
                stamped = seen.flip((*vertical, *horizontal))
        return stamped

    def poison(self, images: Tensor, index: Tensor) -> Tensor:
        """Add the rows' changes, then stamp the corners."""
        if not len(self.rows):
            return self(images, index)
        if self.changes.shape[1:] != images.shape[1:]:
            raise ValueError(
                f"Expected images of the size that the changes were found for, {list(self.changes.shape[1:])}, got "
                f"{list(images.shape[1:])}. Find them at that size."
            )
        place = torch.searchsorted(self.rows, index).clamp(max=len(self.rows) - 1)
        known = (self.rows[place] == index).view(-1, 1, 1, 1)
        changed = torch.where(known, images + self.changes[place].to(images.dtype), images)
        return self(changed.clamp(0, 1), index)

    def cover(self, images: Tensor, index: Tensor) -> Tensor:
        """Stamp as `poison` does."""
        return self.poison(images, index)
