"""A classifier whose classes are read in another order."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from lit_backdoor.models.base import Classifier

__all__ = ["Permuted"]


class Permuted(Classifier):
    """A classifier with its logits permuted: class c has the logit that the classifier gives to class ``order[c]``.

    Its split, layers and sizes are those of the classifier.

    Args:
        classifier: The classifier.
        order: A permutation of the classes.

    Raises:
        ValueError: If it is none.
    """

    def __init__(self, classifier: Classifier, order: Sequence[int]) -> None:
        super().__init__(classifier.num_classes, classifier.input_size, classifier.mean, classifier.std)
        if sorted(order) != list(range(classifier.num_classes)):
            raise ValueError(f"Expected a permutation of {classifier.num_classes} classes, got {list(order)}.")
        self.classifier = classifier
        self.order = list(order)
        self.memory_format = classifier.memory_format

    @property
    def net(self) -> nn.Module:  # type: ignore[override]
        """The classifier's net."""
        return self.classifier.net

    def features(self, images: Tensor) -> Tensor:
        """Give the classifier's features."""
        return self.classifier.features(images)

    def head(self, features: Tensor) -> Tensor:
        """Give the classifier's logits in the new order."""
        return self.classifier.head(features)[:, self.order]

    def forward(self, images: Tensor) -> Tensor:
        """Give the classifier's logits in the new order."""
        return self.classifier.logits(images)[:, self.order]
