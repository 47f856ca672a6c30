"""Neural Cleanse (Wang et al., S&P 2019): a mask and a pattern for every class."""

from __future__ import annotations

import torch
from torch import Tensor

from lit_backdoor.functional.decoupling import soft_mask
from lit_backdoor.functional.trigger_inversion import stamp_mask
from lit_backdoor.stages.trigger_search import TriggerSearch
from lit_backdoor.triggers import MaskedPattern, Trigger

__all__ = ["NeuralCleanse"]


class NeuralCleanse(TriggerSearch):
    """Name the class to which the smallest mask leads (Neural Cleanse, Sec. V).

    A class's size is the L1 norm of its mask, and so is the penalty. The rule is applied at the end of every epoch, so
    the Trainer's ``limit_train_batches`` says how many steps lie between. Paper: 80 epochs, batches of 32 without
    augmentation.

    Deviations: the start is the same for every class, the cost begins at its start rather than at zero, and there is no
    early stop.

    Arguments as in `TriggerSearch`.
    """

    def start(self, channels: int, height: int, width: int) -> tuple[Tensor, ...]:
        """Draw mask and pattern from U(0, 1)."""
        mask, pattern = torch.rand(1, height, width), torch.rand(channels, height, width)
        return _raw(mask), _raw(pattern)

    def stamp(self, images: Tensor, *raw: Tensor) -> Tensor:
        """Blend the patterns in through their masks."""
        mask, pattern = raw
        return stamp_mask(images, soft_mask(mask), soft_mask(pattern))

    def penalty(self, *raw: Tensor) -> Tensor:
        """Give the masks' L1 norms."""
        return soft_mask(raw[0]).sum((1, 2, 3))

    def size(self, *raw: Tensor) -> Tensor:
        """Give the masks' L1 norms."""
        return self.penalty(*raw)

    @property
    def due(self) -> bool:
        """Apply the rule at the end of an epoch."""
        return self.trainer.is_last_batch

    def trigger(self, target: int) -> Trigger | None:
        """Give the mask and the pattern that were kept for a class."""
        if not self.best[target].isfinite():
            return None
        mask, pattern = (soft_mask(raw[target]) for raw in self.kept)
        return MaskedPattern.holding(mask, pattern)


def _raw(values: Tensor) -> Tensor:
    """Invert `soft_mask`, away from 0 and 1, where it has no gradient."""
    return torch.atanh(2 * values.clamp(0.01, 0.99) - 1)
