"""What a pass found out about single rows, over all processes."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

__all__ = ["RowTable"]


class RowTable(Metric):
    """One line per row: whole numbers and a score. Buffers would be overwritten by the first process's."""

    full_state_update = False
    whole: list[Tensor]
    scores: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        self.add_state("whole", [], dist_reduce_fx="cat")
        self.add_state("scores", [], dist_reduce_fx="cat")

    def update(self, scores: Tensor, *whole: Tensor) -> None:
        """Add lines.

        Args:
            scores: ``[B]``.
            *whole: Columns of whole numbers, ``[B]`` each; lines are ordered by the first, then the second and so on.
        """
        self.whole.append(torch.stack(whole, 1))
        self.scores.append(scores.float())

    def compute(self) -> tuple[Tensor, Tensor]:
        """Give the whole numbers ``[N, columns]`` and the scores ``[N]`` of all lines, in order, on the CPU."""
        whole, scores = dim_zero_cat(self.whole).cpu(), dim_zero_cat(self.scores).cpu()
        order = torch.arange(len(whole))
        for column in reversed(whole.unbind(1)):
            order = order[column[order].argsort(stable=True)]
        return whole[order], scores[order]
