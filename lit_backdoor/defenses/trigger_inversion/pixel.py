"""Pixel (Tao et al., CVPR 2022): trigger inversion without a mask."""

from __future__ import annotations

import torch
from torch import Tensor

from lit_backdoor.defenses.trigger_inversion.search import TriggerSearch
from lit_backdoor.functional.cost_schedule import CostRule
from lit_backdoor.functional.trigger_inversion import add_change, changed_pixels, pixel_penalty, signed_change
from lit_backdoor.models import Classifier
from lit_backdoor.triggers import AddedPattern, Trigger

__all__ = ["PixelInversion"]


class PixelInversion(TriggerSearch):
    """Name the class to which the fewest changed pixels lead (Pixel).

    One pattern is added and one taken off. A class's size is the number of pixels that change by 1/255 or more, the
    penalty `pixel_penalty` of both patterns. The rule is applied after every step, to the batch's success rate. Paper:
    1,000 steps.

    Deviations: the start is the same for every class; the decision is Neural Cleanse's index, the paper's own is a
    bound on the size.

    Args:
        suspect: Path of a suspect bundle, or a classifier; frozen.
        cost: How the weight of the penalty moves; default the paper's. What is left out of one is Neural Cleanse's.
        lr: Learning rate of Adam, whose betas are .5 and .9.
        index_threshold: Anomaly index above which a class is flagged.
        own_images: Whether images of a class also count where its own trigger is inverted; they are classified as the
            class without any trigger.
        images_at_once: Stamped images that go through the suspect together; bounds the memory.

    Raises:
        ValueError: If a number is out of range.
    """

    def __init__(
        self,
        suspect: str | Classifier,
        cost: CostRule | None = None,
        lr: float = 0.1,
        index_threshold: float = 2.0,
        own_images: bool = False,
        images_at_once: int = 512,
    ) -> None:
        rule = cost or CostRule(up=1.5, down=1.5**1.5, patience=10, threshold=0.9)
        super().__init__(suspect, rule, lr, index_threshold, own_images, images_at_once)

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

    def due(self, batch_idx: int) -> bool:
        """Apply the rule after every step."""
        return True

    def trigger(self, target: int) -> Trigger | None:
        """Give the change that was kept for a class, without what no image can show."""
        if not self.best[target].isfinite():
            return None
        return AddedPattern.holding(signed_change(*(raw[target] for raw in self.kept)))
