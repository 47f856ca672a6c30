"""The search of stamps that a fine-tune defends against, in the place of the trigger it does not know (ours)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lit_backdoor.errors import check_share
from lit_backdoor.functional.worst_stamp import worst_stamp
from lit_backdoor.models.base import evaluating

__all__ = ["StampSearch"]


@dataclass(frozen=True)
class StampSearch:
    """Search of the stamp that moves a batch most in a direction that a defense fears (ours; `worst_stamp`).

    A net satisfies a loss on clean images by shifting all of them, while a trigger still moves them there. With
    a search each batch comes a second time, stamped, under its true labels.

    Attributes:
        weight: Weight of the loss of stamped images; 1 is that of clean ones.
        budget: Largest change of a pixel where the stamp covers the whole image, in (0, 1]; where the stamp covers less
            of it, pixels may change by more.
        steps: Steps of the search.
        smallest: Smallest share of the area that a stamp covers, in (0, 1].
        whole: Share of the stamps that cover the whole image, in [0, 1]; the others' area is drawn.
        coarsest: Coarsest grid on which stamps are searched: its points are up to so many pixels apart, >= 1.
        shared: Images that share a stamp, >= 1; None for the whole batch. With fewer a step sees more places, at equal
            cost.

    Raises:
        ValueError: If a number is out of range.
    """

    weight: float = 1.0
    budget: float = 0.2
    steps: int = 5
    smallest: float = 0.015
    whole: float = 0.0
    coarsest: float = 1.0
    shared: int | None = None

    def __post_init__(self) -> None:
        if not self.weight >= 0:
            raise ValueError(f"Expected search.weight to be 0 or more, got {self.weight}.")
        if self.steps < 1:
            raise ValueError(f"Expected search.steps of at least 1, got {self.steps}.")
        check_share("search.budget", self.budget, closed=True)
        check_share("search.smallest", self.smallest, closed=True)
        if not 0 <= self.whole <= 1:
            raise ValueError(f"Expected search.whole in [0, 1], got {self.whole}.")
        if not 1 <= self.coarsest < math.inf:
            raise ValueError(f"Expected search.coarsest to be 1 or more, and finite, got {self.coarsest}.")
        if self.shared is not None and self.shared < 1:
            raise ValueError(f"Expected search.shared of at least 1, or none, got {self.shared}.")

    def stamped(self, net: nn.Module, images: Tensor, movement: Callable[[Tensor], Tensor]) -> Tensor:
        """Stamp a batch so that it moves most, in eval mode, so that no statistics are updated.

        Args:
            net: The net that ``movement`` asks.
            images: In [0, 1], ``[B, C, H, W]``.
            movement: What to maximize, from stamped images to a scalar.

        Returns:
            Stamped images, without gradient.
        """
        with evaluating(net), torch.enable_grad():
            return worst_stamp(
                images, movement, self.budget, self.steps, self.smallest, self.whole, self.coarsest, self.shared
            )
