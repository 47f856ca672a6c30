"""The weight of a trigger's size while it is inverted: up where the trigger works, down where it does not."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from lit_backdoor.errors import check_share

__all__ = ["CostRule", "CostState", "move_cost", "start_cost"]


@dataclass(frozen=True)
class CostRule:
    """How the weight moves (Neural Cleanse, Wang et al. 2019; Pixel, Tao et al. 2022). Defaults: Neural Cleanse's.

    Attributes:
        start: The weight at first, > 0. Both: 1e-3.
        up: Factor on the weight, > 1, once the trigger has worked ``patience`` times in a row. Pixel: 1.5.
        down: Divisor of the weight, > 1, once it has failed as often. Pixel: 1.5 to the power of 1.5.
        patience: Times in a row, at least 1. Pixel: 10.
        threshold: Attack success rate from which a trigger works, in (0, 1]. Pixel: .9.
        least: Lower bound of the weight, at most ``start``. None in the papers.
        most: Upper bound of the weight, at least ``start``. None in the papers.

    Raises:
        ValueError: If a number is out of range.
    """

    start: float = 1e-3
    up: float = 2.0
    down: float = 2.0**1.5
    patience: int = 5
    threshold: float = 0.98
    least: float = 0.0
    most: float = math.inf

    def __post_init__(self) -> None:
        if not self.start > 0:
            raise ValueError(f"Expected cost.start > 0, got {self.start}.")
        for name, factor in (("up", self.up), ("down", self.down)):
            if not factor > 1:
                raise ValueError(f"Expected cost.{name} > 1, got {factor}.")
        if self.patience < 1:
            raise ValueError(f"Expected cost.patience to be at least 1, got {self.patience}.")
        check_share("cost.threshold", self.threshold, closed=True)
        if not self.least <= self.start <= self.most:
            raise ValueError(
                f"Expected cost.least <= cost.start <= cost.most, got {self.least}, {self.start} and {self.most}."
            )


class CostState(NamedTuple):
    """Where the weights of K classes stand.

    Attributes:
        cost: The weights, float ``[K]``.
        worked: Times in a row that each trigger worked since the last move, int64 ``[K]``.
        failed: Times in a row that it failed, int64 ``[K]``.
    """

    cost: Tensor
    worked: Tensor
    failed: Tensor


def start_cost(count: int, rule: CostRule) -> CostState:
    """Give the state of so many classes at the start."""
    return CostState(torch.full((count,), rule.start), torch.zeros(count).long(), torch.zeros(count).long())


def move_cost(state: CostState, rate: Tensor, rule: CostRule) -> CostState:
    """Move the weights by what the triggers achieved.

    Args:
        state: Before.
        rate: Attack success rate of each class's trigger, in [0, 1], ``[K]``; NaN, if no image was tried, keeps a
            class as it is.
        rule: The rule.

    Returns:
        The state after; nothing is changed in place.
    """
    tried, works = ~rate.isnan(), rate >= rule.threshold
    worked = torch.where(works, state.worked + 1, 0)
    failed = torch.where(works, 0, state.failed + 1)
    rise, fall = worked >= rule.patience, failed >= rule.patience
    factor = torch.where(rise, rule.up, torch.where(fall, 1 / rule.down, 1.0))
    cost = (state.cost * factor).clamp(rule.least, rule.most)
    moved = (cost, worked.masked_fill(rise, 0), failed.masked_fill(fall, 0))
    return CostState(*(torch.where(tried, new, old) for new, old in zip(moved, state, strict=True)))
