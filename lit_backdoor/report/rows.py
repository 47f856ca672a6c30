"""Which rows a report shows."""

from __future__ import annotations

import torch
from torch import Tensor

from lit_backdoor.data.views import View

__all__ = ["counting", "pick", "spread"]


def counting(view: View) -> Tensor:
    """Say which rows of a view count in ASR and RA, bool ``[N]``; all of them in a view that is not triggered."""
    return torch.ones(len(view), dtype=torch.bool) if view.eligible is None else view.eligible


def pick(labels: Tensor, allowed: Tensor, most: int = 8) -> Tensor:
    """Choose rows to show without looking at them: the first allowed ones, of classes spread over all.

    Args:
        labels: True labels, int64 ``[N]``.
        allowed: Rows to choose from, bool ``[N]``.
        most: How many.

    Returns:
        Positions, int64, ordered by class.
    """
    classes = spread(labels[allowed], most)
    places = {label: (allowed & (labels == label)).nonzero().flatten().tolist() for label in classes}
    turns = max((len(rows) for rows in places.values()), default=0)
    dealt = [(label, rows[turn]) for turn in range(turns) for label, rows in places.items() if turn < len(rows)]
    return torch.tensor([row for _, row in sorted(dealt[:most])], dtype=torch.int64)


def spread(labels: Tensor, most: int) -> list[int]:
    """Choose at most so many of the classes that occur, evenly from the first to the last."""
    classes: list[int] = sorted(set(labels.tolist()))
    if len(classes) > most:
        classes = [classes[round(i * (len(classes) - 1) / max(1, most - 1))] for i in range(most)]
    return classes
