"""Where an attack leads each class, as PGBD is told: to one target, to several, or by a map."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["constant_leads", "mapped_leads"]


def constant_leads(targets: Sequence[int], num_classes: int) -> Tensor:
    """Lead every class to each of the targets, int64 ``[T, C]``."""
    return torch.tensor(targets, dtype=torch.long)[:, None].repeat(1, num_classes)


def mapped_leads(leads: Sequence[int], num_classes: int) -> Tensor:
    """Lead each class to one of its own, int64 ``[1, C]``.

    Raises:
        ValueError: If there is not one class for each.
    """
    if len(leads) != num_classes or not all(type(lead) is int and 0 <= lead < num_classes for lead in leads):
        raise ValueError(
            f"Expected a map of {num_classes} classes from 0 to {num_classes - 1}, one for each class, got {leads}."
        )
    return torch.tensor([leads], dtype=torch.long)
