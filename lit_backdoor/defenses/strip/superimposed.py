"""STRIP's detector: clean images superimposed on an input."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from lit_backdoor.functional.perturbed_predictions import mean_entropy
from lit_backdoor.models import Classifier, PerturbedQueries

__all__ = ["Superimposed"]


class Superimposed(PerturbedQueries):
    """Score an input by the entropy of predictions on it under superimposed images; low entropy is suspicious.

    Args:
        classifier: The classifier.
        count: Number of images to superimpose, at least 1; they are black until they are set.
        weight: Weight of a superimposed image, > 0; pixels above 1 are cut off.

    Raises:
        ValueError: If a number is out of range.
    """

    overlays: Tensor

    def __init__(self, classifier: Classifier, count: int, weight: float = 1.0) -> None:
        super().__init__(classifier)
        if count < 1:
            raise ValueError(f"Expected count of at least 1, got {count}.")
        if not weight > 0:
            raise ValueError(f"Expected weight to be above 0, got {weight}.")
        self.weight = weight
        self.register_buffer("overlays", classifier.example(count))

    def copies(self, images: Tensor) -> Iterator[Tensor]:
        """Superimpose each image on all inputs."""
        for overlay in self.overlays:
            yield (images + self.weight * overlay).clamp(0, 1)

    def score(self, logits: Tensor, changed: Tensor) -> Tensor:
        """Give the negative entropy."""
        return -mean_entropy(changed)
