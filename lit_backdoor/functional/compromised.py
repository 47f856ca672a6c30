"""Which channels a backdoor uses, and which rows excite them (NONE, Wang et al., 2022; PIPD, Chen et al., 2024)."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["excess", "natural_break"]


def excess(peaks: Tensor, strong: Tensor, weak: Tensor) -> Tensor:
    r"""Say by how much some rows excite a channel more than three deviations above what others do.

    .. math:: \max_{i \in S} a_{ic} - (\mu_c + 3 \sigma_c), \qquad \mu_c, \sigma_c \text{ over } i \in W

    Args:
        peaks: a, the strongest activations, ``[N, C]``.
        strong: S, bool ``[N]``.
        weak: W, bool ``[N]``.

    Returns:
        ``[C]``; minus infinity where one of the two sets is empty.
    """
    if not (strong.any() and weak.any()):
        return torch.full_like(peaks[0], -torch.inf)
    base = peaks[weak]
    return peaks[strong].amax(0) - base.mean(0) - 3 * base.std(0, correction=0)


def natural_break(values: Tensor) -> Tensor:
    """Cut numbers ``[N]`` into two groups of the least variance within them (Jenks' natural breaks of two classes).

    Returns:
        Whether each one is in the upper group, bool ``[N]``; none is where all are equal.
    """
    ordered = values.double().sort().values
    if len(ordered) < 2 or ordered[0] == ordered[-1]:
        return torch.zeros_like(values, dtype=torch.bool)
    below = torch.arange(1, len(ordered), device=values.device).double()
    sums, count = ordered.cumsum(0), float(len(ordered))
    low, high = sums[:-1] / below, (sums[-1] - sums[:-1]) / (count - below)
    between = below * (count - below) * (high - low).square()  # what remains is within the groups
    return values.double() > ordered[int(between.argmax())]
