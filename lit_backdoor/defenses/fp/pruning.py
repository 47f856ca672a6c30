"""The first step of fine-pruning: pruning of latent units that are silent on clean images."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from lit_backdoor.errors import check_share
from lit_backdoor.metrics import accuracy
from lit_backdoor.models import Classifier
from lit_backdoor.models.latents import check_final_linear, latents_and_logits
from lit_backdoor.stages.pruning import Pruning

__all__ = ["FPPruning"]


class FPPruning(Pruning):
    """Cut the units with the lowest mean activation on root images off the final linear layer, the lowest first.

    Units are cut one by one until the accuracy on the root set falls by more than the tolerance; the cut that costs too
    much is not made.

    Args:
        suspect: Path of a suspect bundle, or a classifier (a copy of it is pruned).
        tolerance: Share of the root accuracy that pruning may cost, in (0, 1). BackdoorBench: .1.

    Raises:
        ValueError: If the tolerance is out of range; when run, if the suspect has no final linear layer.
    """

    views: ClassVar[tuple[str, ...]] = ("root",)
    selection: ClassVar[Literal["none", "root", "oracle"]] = "root"

    def __init__(self, suspect: str | Classifier, tolerance: float = 0.1) -> None:
        super().__init__(suspect)
        self.tolerance = check_share("the accuracy that pruning may cost", tolerance)
        self.cut_units: list[int] = []

    def build(self) -> None:
        """Open the suspect."""
        super().build()
        check_final_linear(self.classifier)

    def scores(self) -> Tensor:
        """Give the units' mean activations on root images, ``[d]``; the latents are kept for the choice."""
        rows = [
            (
                latents_and_logits(self.classifier, batch["image"])[0][batch["valid"]].float(),
                batch["label"][batch["valid"]],
            )
            for batch in self.passes("root", self.classifier)
        ]
        self.latents, self.labels = (torch.cat(column) for column in zip(*rows, strict=True))
        return self.latents.mean(0)

    def chosen(self, scores: Tensor) -> Tensor:
        """Choose units in rising order of activation for as long as the root accuracy holds."""
        order, kept = scores.argsort(stable=True), torch.ones_like(scores)
        least = (1 - self.tolerance) * self.accuracy_with(kept)
        for place, unit in enumerate(order):
            kept[unit] = 0
            if self.accuracy_with(kept) < least:
                return order[:place]
        return order

    def accuracy_with(self, kept: Tensor) -> float:
        """Measure the root accuracy with some units kept, ``[d]`` of 0 and 1."""
        last = self.classifier.final_linear
        return float(accuracy(F.linear(self.latents * kept, last.weight, last.bias), self.labels))

    def cut(self, units: Tensor) -> None:
        """Take the units off the final linear layer."""
        self.classifier.final_linear.weight[:, units] = 0
        self.cut_units = units.tolist()

    def numbers(self) -> dict[str, Any]:
        """Give the units that were cut."""
        return {"cut_units": self.cut_units}
