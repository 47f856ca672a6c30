"""BTI-DBF (U) on batches of which a share is generated, as the official release does it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from lit_backdoor.defenses.btidbf.unlearning import BTIDBFUnlearning
from lit_backdoor.errors import check_share
from lit_backdoor.functional.decoupling import error, replace_share
from lit_backdoor.models import Classifier
from lit_backdoor.stages.base import Batch

__all__ = ["BTIDBFPartialUnlearning"]


class BTIDBFPartialUnlearning(BTIDBFUnlearning):
    """Replace a share of each batch by its generated images, and pull features to the clean ones' (release).

    It keeps more accuracy than Eq. 3 on every image.

    Args:
        suspect: Path of a suspect bundle, or a classifier (a copy of it is tuned).
        share: Share of each batch that is generated, in (0, 1]. Release: .1.
        **options: Further arguments of `BTIDBFUnlearning`.

    Raises:
        ValueError: If the share is out of range; else as `BTIDBFUnlearning`.
    """

    def __init__(self, suspect: str | Classifier, share: float = 0.1, **options: Any) -> None:
        super().__init__(suspect, **options)
        self.share_generated = check_share("the share of generated images", share, closed=True)

    def unlearning(self, batch: Batch) -> Tensor:
        """Compute the cross-entropy of the mixed batch and the distance of its features from the clean ones'."""
        images, labels = batch["image"], batch["label"]
        with torch.no_grad():
            mixed = replace_share(images, self.unlearned(), self.share_generated)
        clean, changed = self.features(self.classifier, torch.cat((images, mixed))).chunk(2)
        logits = self.head(self.classifier, changed).float()
        return F.cross_entropy(logits, labels) + error(clean, changed, self.inversion.norm)
