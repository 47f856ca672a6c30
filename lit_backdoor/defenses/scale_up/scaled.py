"""SCALE-UP's detector: inputs whose pixel values are multiplied."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from lit_backdoor.functional.perturbed_predictions import ClassStatistics, prediction_consistency
from lit_backdoor.models import Classifier, PerturbedQueries

__all__ = ["FACTORS", "Scaled"]

FACTORS = (3.0, 5.0, 7.0, 9.0, 11.0)


class Scaled(PerturbedQueries):
    """Score an input by the share of its multiplied copies that keep its class, compared with what is usual for it.

    Args:
        classifier: The classifier.
        factors: What pixel values are multiplied by, each > 1; values above 1 are cut off.

    Raises:
        ValueError: If there is no factor, or one is not above 1.
    """

    usual: Tensor
    spread: Tensor

    def __init__(self, classifier: Classifier, factors: Sequence[float] = FACTORS) -> None:
        super().__init__(classifier)
        if not factors or not all(factor > 1 for factor in factors):
            raise ValueError(f"Expected factors above 1, got {list(factors)}.")
        self.factors = tuple(factors)
        self.register_buffer("usual", torch.zeros(self.num_classes))
        self.register_buffer("spread", torch.ones(self.num_classes))

    def copies(self, images: Tensor) -> Iterator[Tensor]:
        """Multiply all inputs by each factor."""
        for factor in self.factors:
            yield (images * factor).clamp(0, 1)

    def score(self, logits: Tensor, changed: Tensor) -> Tensor:
        """Give the consistency, less the usual one of the predicted class, in deviations of it."""
        classes = logits.argmax(1)
        return (prediction_consistency(logits, changed) - self.usual[classes]) / self.spread[classes]

    def take(self, statistics: ClassStatistics) -> None:
        """Set what is usual for each class."""
        self.usual.copy_(statistics.mean)
        self.spread.copy_(statistics.std)
