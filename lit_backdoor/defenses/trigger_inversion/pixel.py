"""Pixel (Tao et al., CVPR 2022): trigger inversion without a mask."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from lit_backdoor.functional.cost_schedule import CostRule
from lit_backdoor.functional.trigger_inversion import add_change, changed_pixels, pixel_penalty, signed_change
from lit_backdoor.stages.trigger_search import TriggerSearch
from lit_backdoor.triggers import AddedPattern, Trigger

__all__ = ["PixelInversion"]


class PixelInversion(TriggerSearch):
    """Name the class to which the fewest changed pixels lead (Pixel).

    One pattern is added and one taken off. A class's size is the number of pixels that change by 1/255 or more, the
    penalty `pixel_penalty` of both patterns. The rule is applied after every step, to the batch's success rate. Paper:
    1,000 steps.

    Deviations: the start is the same for every class; the decision is Neural Cleanse's index, the paper's own is a
    bound on the size.

    Arguments as in `TriggerSearch`; what is left out of a ``cost`` is Neural Cleanse's.
    """

    usual_cost: ClassVar[CostRule] = CostRule(up=1.5, down=1.5**1.5, patience=10, threshold=0.9)

    def start(self, channels: int, height: int, width: int) -> tuple[Tensor, ...]:
        """Draw both patterns from U(0, 1)."""
        return torch.rand(channels, height, width), torch.rand(channels, height, width)

    def stamp(self, images: Tensor, *raw: Tensor) -> Tensor:
        """Add the one pattern, take off the other."""
        return add_change(images, signed_change(*raw))

    def penalty(self, *raw: Tensor) -> Tensor:
        """Give the penalty of both patterns."""
        return pixel_penalty(raw[0]) + pixel_penalty(raw[1])

    def size(self, *raw: Tensor) -> Tensor:
        """Count the changed pixels."""
        return changed_pixels(signed_change(*raw))

    @property
    def due(self) -> bool:
        """Apply the rule after every step."""
        return True

    def trigger(self, target: int) -> Trigger | None:
        """Give the change that was kept for a class, without what no image can show."""
        if not self.best[target].isfinite():
            return None
        return AddedPattern.holding(signed_change(*(raw[target] for raw in self.kept)))
