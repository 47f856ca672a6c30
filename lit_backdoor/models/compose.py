"""Classifiers made of classifiers."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn

from lit_backdoor.functional.decoupling import lost_confidence
from lit_backdoor.models.base import Classifier
from lit_backdoor.models.input_detector import InputDetector

__all__ = ["Purified"]


class Purified(InputDetector):
    """A classifier that looks at images through a purifier: ``f(P(x))``.

    Its split, layers and sizes are those of the classifier.

    Args:
        purifier: Image in [0, 1] to image in [0, 1], of the same shape.
        classifier: What classifies the purified images.
    """

    def __init__(self, purifier: nn.Module, classifier: Classifier) -> None:
        super().__init__(classifier)
        self.purifier = purifier

    def purified(self, images: Tensor) -> Tensor:
        """Purify images ``[B, C, H, W]`` in [0, 1]."""
        return cast(Tensor, self.purifier(images))

    def features(self, images: Tensor) -> Tensor:
        """Give the classifier's features of the purified images."""
        return self.classifier.features(self.purified(images))

    def forward(self, images: Tensor) -> Tensor:
        """Give the classifier's logits of the purified images."""
        return self.classifier.logits(self.purified(images))

    def judge(self, images: Tensor) -> dict[str, Tensor]:
        """Judge inputs by what purification changes (BTI-DBF, App. A).

        Returns:
            The classes ``before`` and ``after`` it, int64; ``flagged``, whether they differ, bool; ``score``, how much
            of the first class's probability is lost; ``[B]`` each.
        """
        before, after = self.classifier(images).float(), self(images).float()
        scores, flags = lost_confidence(before, after)
        return {"before": before.argmax(1), "after": after.argmax(1), "flagged": flags, "score": scores}
