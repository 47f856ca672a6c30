"""A classifier some of whose features have their sign flipped."""

from __future__ import annotations

import torch
from torch import Tensor

from lit_backdoor.models import Classifier, Enclosing
from lit_backdoor.models.base import evaluating

__all__ = ["Flipped"]


class Flipped(Enclosing):
    """Multiply a classifier's features by what flips those under a mask.

    The factor is 1 at first, which changes nothing; `flip` sets it.

    Args:
        classifier: The classifier.
    """

    factor: Tensor

    def __init__(self, classifier: Classifier) -> None:
        super().__init__(classifier)
        with evaluating(classifier):
            shape = classifier.features(classifier.example()).shape[1:]
        self.register_buffer("factor", torch.ones(shape))

    def flip(self, masks: Tensor) -> None:
        r"""Flip by one mask after another, :math:`\prod_m (1 - 2m)`, ``[N, ...]`` in [0, 1]."""
        self.factor.copy_((1 - 2 * masks).prod(0))

    def features(self, images: Tensor) -> Tensor:
        """Give the flipped features."""
        return self.classifier.features(images) * self.factor

    def forward(self, images: Tensor) -> Tensor:
        """Give the logits of the flipped features."""
        return self.head(self.features(images))
