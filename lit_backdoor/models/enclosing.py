"""The base of classifiers that hold another classifier."""

from __future__ import annotations

from torch import Tensor, nn

from lit_backdoor.models.base import Classifier

__all__ = ["Enclosing"]


class Enclosing(Classifier):
    """A classifier that holds another one, whose logits, split, layers and sizes are its own.

    A subclass changes what it is there for: what comes before, within or after the classifier.

    Args:
        classifier: The classifier.
    """

    def __init__(self, classifier: Classifier) -> None:
        super().__init__(classifier.num_classes, classifier.input_size, classifier.mean, classifier.std)
        self.memory_format = classifier.memory_format
        self.classifier = classifier

    @property
    def net(self) -> nn.Module:  # type: ignore[override]
        """The classifier's net."""
        return self.classifier.net

    def features(self, images: Tensor) -> Tensor:
        """Give the classifier's features."""
        return self.classifier.features(images)

    def head(self, features: Tensor) -> Tensor:
        """Give the classifier's logits."""
        return self.classifier.head(features)

    def forward(self, images: Tensor) -> Tensor:
        """Give the classifier's logits."""
        return self.classifier.logits(images)
