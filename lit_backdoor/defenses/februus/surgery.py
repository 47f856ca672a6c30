"""Februus in use: a classifier behind the removal of what decides its prediction."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from lit_backdoor.functional.grad_cam import head_cam
from lit_backdoor.models import Classifier, Purified, UNet

__all__ = ["Surgery"]


class Surgery(Purified):
    """Paint over the region of an image that decides the classifier's prediction, then classify what is left.

    The threshold on the heat is infinite at first, so that nothing is removed.

    Args:
        purifier: Paints in holes, which are gray: image to image, both in [0, 1].
        classifier: The classifier.
    """

    threshold: Tensor

    def __init__(self, purifier: UNet, classifier: Classifier) -> None:
        super().__init__(purifier, classifier)
        self.register_buffer("threshold", torch.tensor(torch.inf))

    def holes(self, images: Tensor) -> Tensor:
        """Say which pixels are removed, bool ``[B, 1, H, W]``."""
        with torch.no_grad():
            features = self.classifier.features(images)
        return head_cam(self.classifier.head, features, (images.shape[-2], images.shape[-1])) > self.threshold

    def painted(self, images: Tensor, holes: Tensor) -> Tensor:
        """Paint in holes."""
        return torch.where(holes, cast(Tensor, self.purifier(torch.where(holes, 0.5, images))).to(images), images)

    def purified(self, images: Tensor) -> Tensor:
        """Remove what decides, and paint it in."""
        return self.painted(images, self.holes(images))
