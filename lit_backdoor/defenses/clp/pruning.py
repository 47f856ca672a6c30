"""CLP's pruning of channels by their Lipschitz bounds."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lit_backdoor.functional.lipschitz import channel_lipschitz, standard_scores
from lit_backdoor.models import Classifier
from lit_backdoor.models.channels import norm_scale, producers
from lit_backdoor.stages.pruning import Pruning

__all__ = ["CLP"]


class CLP(Pruning):
    r"""Prune channels whose Lipschitz bound is above their layer's mean by u standard deviations (CLP); no data.

    A channel is one of a batch norm, together with the convolution whose output it normalizes. Norms that take anything
    else are left as they are: in nets that normalize before they convolve, the sum of two branches has no bound of its
    own.

    Args:
        suspect: Path of a suspect bundle, or a classifier (a copy of it is pruned).
        u: How many standard deviations. Paper: 3 on CIFAR-10, 5 on Tiny ImageNet.

    Raises:
        ValueError: If u is not positive; when run, if no batch norm follows a convolution.
    """

    def __init__(self, suspect: str | Classifier, u: float = 3.0) -> None:
        super().__init__(suspect)
        if not u > 0:
            raise ValueError(f"Expected u above 0, got {u}.")
        self.u = u
        self.pruned = 0

    def build(self) -> None:
        """Open the suspect, and pair its norms with convolutions."""
        super().build()
        self.pairs = list(producers(self.classifier))
        if not self.pairs:
            raise ValueError(
                f"Expected batch norms that follow a convolution in {type(self.classifier.net).__name__}, found none. "
                "CLP has no bounds for it; choose another defense, such as fine_tune."
            )

    def scores(self) -> Tensor:
        """Give the standard scores of all channels' bounds within their layers, ``[channels]``."""
        bounds = [channel_lipschitz(conv.weight, norm_scale(norm)) for conv, norm in self.pairs]
        return torch.cat([standard_scores(each) for each in bounds])

    def chosen(self, scores: Tensor) -> Tensor:
        """Choose the channels above u."""
        return scores > self.u

    def cut(self, units: Tensor) -> None:
        """Set weight and bias of the channels to 0."""
        self.pruned = int(units.sum())
        sizes = [norm.num_features for _, norm in self.pairs]
        for (_, norm), part in zip(self.pairs, torch.split(units, sizes), strict=True):
            norm.weight[part] = norm.bias[part] = 0

    def numbers(self) -> dict[str, Any]:
        """Give the number of pruned channels."""
        return {"pruned_channels": self.pruned}
