"""Labels that are wrong on purpose."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["wrong_labels"]


def wrong_labels(labels: Tensor, num_classes: int) -> Tensor:
    """Draw another class for each label, each of the others equally likely (SEAM, Zhu et al. 2023).

    Args:
        labels: int64 ``[B]``.
        num_classes: Number of classes, at least 2.

    Returns:
        int64 ``[B]``. Draws come from torch's global generator of the CPU.
    """
    return (labels + torch.randint(1, num_classes, labels.shape).to(labels)) % num_classes
