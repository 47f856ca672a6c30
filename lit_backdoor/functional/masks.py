"""Masks over the pixels of an image."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["area_mask"]


def area_mask(raw: Tensor, share: float, steps: int = 40) -> Tensor:
    r"""Mask of a given area: a sigmoid whose threshold is set so that its mean is the share.

    .. math:: m_i = \sigma(r_i - c), \qquad \tfrac1n \sum_i m_i = s

    The threshold c is found by bisection; gradients take into account that it moves with r, so that they sum to zero.

    Args:
        raw: r, of any shape.
        share: s, in (0, 1).
        steps: Halvings of the bisection.

    Returns:
        Of the same shape, in [0, 1], float32.
    """
    raw = raw.float()
    with torch.no_grad():
        low, high = raw.min() - 20, raw.max() + 20
        for _ in range(steps):
            middle = (low + high) / 2
            larger = torch.sigmoid(raw - middle).mean() > share
            low, high = torch.where(larger, middle, low), torch.where(larger, high, middle)
        threshold = (low + high) / 2
        slope = torch.sigmoid(raw - threshold)
        slope = slope * (1 - slope)
        weight = slope / slope.sum().clamp(min=1e-12)
    moves = (weight * raw).sum()  # dc = sum of w_i dr_i
    return torch.sigmoid(raw - threshold - (moves - moves.detach()))
