"""Classifiers that also say of each input whether it carries a trigger."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator

import torch
from torch import Tensor

from lit_backdoor.models.base import Classifier
from lit_backdoor.models.enclosing import Enclosing

__all__ = ["InputDetector", "PerturbedQueries"]


class InputDetector(Enclosing):
    """A classifier that judges its inputs, too.

    Args:
        classifier: The classifier.
    """

    @abstractmethod
    def judge(self, images: Tensor) -> dict[str, Tensor]:
        """Judge inputs ``[B, C, H, W]`` in [0, 1].

        Returns:
            The classes ``before`` and ``after`` what the detector does to an input, int64; ``flagged``, whether it
            calls the input triggered, bool; ``score``, large where it is suspicious; ``[B]`` each.
        """


class PerturbedQueries(InputDetector):
    """Judge an input by what the classifier says of changed copies of it; flag scores above a threshold.

    A subclass makes the copies and scores the answers. The threshold is infinite at first, so that nothing is flagged.
    """

    threshold: Tensor

    def __init__(self, classifier: Classifier) -> None:
        super().__init__(classifier)
        self.register_buffer("threshold", torch.tensor(torch.inf))

    @abstractmethod
    def copies(self, images: Tensor) -> Iterator[Tensor]:
        """Give changed copies of all images, one after the other, ``[B, C, H, W]`` each."""

    @abstractmethod
    def score(self, logits: Tensor, changed: Tensor) -> Tensor:
        """Score inputs, ``[B]``, by the logits of the inputs ``[B, K]`` and of their copies ``[N, B, K]``."""

    def judge(self, images: Tensor) -> dict[str, Tensor]:
        """Judge inputs; ``after`` is the class that most copies get."""
        logits = self.classifier.logits(images).float()
        changed = torch.stack([self.classifier.logits(copy).float() for copy in self.copies(images)])
        scores = self.score(logits, changed)
        after = changed.argmax(2).mode(0).values
        return {"before": logits.argmax(1), "after": after, "flagged": scores > self.threshold, "score": scores}
