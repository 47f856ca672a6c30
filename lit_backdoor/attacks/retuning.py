"""Retuning: does a backdoor that a defense removed come back when somebody tunes the suspect further?"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from lit_backdoor.models import Classifier
from lit_backdoor.stages import FineTune
from lit_backdoor.stages.base import Batch
from lit_backdoor.triggers.base import Role

__all__ = ["Retuning"]


class Retuning(FineTune):
    """Fine-tune a cleaned suspect on root data to which a few poisoned samples are added (Retuning attack).

    The samples are the first poisoned rows of the questioned set, under the attacker's label; every batch has them all.
    Root data come with them because a net tuned on poisoned samples only names the target for any image.

    Args:
        suspect: Path of a suspect bundle, or a classifier (a copy of it is tuned).
        samples: Number of poisoned samples, at least 1.
        **options: Further arguments of `FineTune`.

    Raises:
        ValueError: If ``samples`` is not positive or another option unknown; when run, if the data have no poisoned
            rows.
    """

    def __init__(self, suspect: str | Classifier, samples: int = 5, **options: Any) -> None:
        super().__init__(suspect, **options)
        if samples < 1:
            raise ValueError(f"Expected samples of at least 1, got {samples}.")
        self.samples = samples

    def on_fit_start(self) -> None:
        """Take the poisoned samples."""
        super().on_fit_start()
        images, labels, missing = [], [], self.samples
        for batch in self.passes("questioned"):
            poisoned = ((batch["role"] == Role.POISON) & batch["valid"]).nonzero().flatten()[:missing]
            images.append(batch["image"][poisoned])
            labels.append(batch["label"][poisoned])
            missing -= len(poisoned)
            if not missing:
                break
        self._images, self._labels = torch.cat(images), torch.cat(labels)
        if not len(self._images):
            raise ValueError("Expected data with an attack for Retuning, got none whose rows are poisoned.")

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Compute the cross-entropy of one batch and the poisoned samples."""
        images, labels = torch.cat((batch["image"], self._images)), torch.cat((batch["label"], self._labels))
        return {"loss": F.cross_entropy(self.classifier(images).float(), labels)}
