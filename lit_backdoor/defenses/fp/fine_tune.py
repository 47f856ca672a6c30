"""The second step of fine-pruning: fine-tuning of what was not pruned."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from lit_backdoor.stages.repair import FineTune

__all__ = ["FPFineTune"]


class FPFineTune(FineTune):
    """Fine-tune a pruned suspect on root data; units that were cut off the final linear layer stay cut off.

    Arguments as in `FineTune`.
    """

    def build(self) -> None:
        """Open the suspect and note which units are cut."""
        super().build()
        self.kept: Tensor
        self.register_buffer("kept", self.classifier.final_linear.weight.detach().any(0).float(), persistent=False)

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Make a step, and cut the units again."""
        super().optimizer_step(*args, **kwargs)
        self.classifier.final_linear.weight.data.mul_(self.kept)
