"""BTI-DBF (P) on batches of which a share is generated, as the official release does it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lit_backdoor.defenses.btidbf.purification import BTIDBFPurification
from lit_backdoor.errors import check_share
from lit_backdoor.functional.decoupling import replace_share
from lit_backdoor.models import Classifier
from lit_backdoor.stages.base import Batch

__all__ = ["BTIDBFPartialPurification"]


class BTIDBFPartialPurification(BTIDBFPurification):
    """Train the purifier on batches of which a share is generated, with noise, and punish large changes (release).

    Args:
        suspect: Path of a suspect bundle, or a classifier; frozen.
        share: Share of each batch that is generated, in (0, 1]. Release: .1.
        noise: Deviation of Gaussian noise on what the purifier sees in training, in normalized units. Release: .03.
        far_weight: Weight of the image error where its batch mean exceeds .05. Release: 100; the paper has one weight.
        **options: Further arguments of `BTIDBFPurification`; ``benign_weight`` has no effect, since clean images are in
            the same batch.

    Raises:
        ValueError: If the share is out of range; else as `BTIDBFPurification`.
    """

    def __init__(
        self,
        suspect: str | Classifier,
        share: float = 0.1,
        noise: float = 0.0,
        far_weight: float = 1.0,
        **options: Any,
    ) -> None:
        super().__init__(suspect, **options)
        self.share_generated = check_share("the share of generated images", share, closed=True)
        self.noise, self.far_weight = noise, far_weight

    def purifying(self, batch: Batch) -> Tensor:
        """Compute the loss of one batch of root images, a share of them generated."""
        images = batch["image"]
        features = self.features_of(self.subject, batch)
        with torch.no_grad():
            mixed = replace_share(images, self.triggered, self.share_generated)
        return self.restoration(batch, mixed, features)

    def restoration(self, batch: Batch, inputs: Tensor, features: Tensor) -> Tensor:
        """Compute Eq. 5 with noise on the inputs."""
        if self.noise:
            scale = self.noise * torch.tensor(self.subject.std).view(-1, 1, 1)
            inputs = (inputs + (torch.randn(inputs.shape) * scale).to(inputs)).clamp(0, 1)
        return super().restoration(batch, inputs, features)

    def weight_of(self, image: Tensor) -> Tensor:
        """Weigh an image error above .05 by `far_weight`."""
        return torch.where(image.detach() > 0.05, self.far_weight, self.image_weight)
