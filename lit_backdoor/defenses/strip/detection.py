"""The stage of STRIP."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lit_backdoor.defenses.strip.superimposed import Superimposed
from lit_backdoor.functional.perturbed_predictions import normal_boundary
from lit_backdoor.models import Classifier
from lit_backdoor.stages import Batch, CalibratedDetection

__all__ = ["STRIP"]


class STRIP(CalibratedDetection):
    """Flag inputs whose predicted class hardly depends on superimposed images: the trigger decides (STRIP).

    Root images drawn once are superimposed on every input, so that a judgment is a function of the input. The threshold
    is that of a normal distribution with the mean and deviation of the entropies of all other root images.

    Args:
        suspect: Path of a suspect bundle, or a classifier.
        count: Number of superimposed images, at least 1. Release: 100.
        weight: Weight of a superimposed image, > 0; pixels above 1 are cut off. Release: 1.
        false_alarms: Share of clean inputs that may be flagged, in (0, 1). Paper: .01.
        table: CSV file of inputs that ``predict`` writes; None puts ``inputs.csv`` under ``default_root_dir``.

    Raises:
        ValueError: If ``false_alarms`` is out of range; when run, if another number is, fewer than two root images are
            left to set the threshold, or root images are not of the suspect's size.
    """

    def __init__(
        self,
        suspect: str | Classifier,
        count: int = 10,
        weight: float = 1.0,
        false_alarms: float = 0.05,
        table: str | None = None,
    ) -> None:
        super().__init__(suspect, false_alarms, table)
        self.count, self.weight = count, weight

    def detector(self, classifier: Classifier) -> Superimposed:
        """Superimpose images on the suspect's inputs."""
        self.refuse_other_size(classifier)
        return Superimposed(classifier, self.count, self.weight)

    def prepare(self) -> None:
        """Take the images to superimpose from the root set."""
        rows = self.data.get_view("root").index
        if len(rows) < self.count + 2:
            raise ValueError(
                f"Expected at least {self.count + 2} root images, {self.count} to superimpose and two to set the "
                f"threshold, got {len(rows)}. Set model.init_args.count, or give a larger root set."
            )
        order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(self.seed))
        self.chosen = rows[order[: self.count]].to(self.device)
        kept = [batch["image"][batch["valid"] & self._is_chosen(batch)] for batch in self.passes("root")]
        detector: Any = self.net.module
        detector.overlays.copy_(torch.cat(kept))

    def _is_chosen(self, batch: Batch) -> Tensor:
        return torch.isin(batch["index"], self.chosen)

    def judged(self, batch: Batch) -> Tensor:
        """Leave the superimposed images out."""
        return super().judged(batch) & ~self._is_chosen(batch)

    def boundary(self, scores: Tensor) -> Tensor:
        """Give the threshold of the fitted normal distribution."""
        return normal_boundary(scores, self.false_alarms)
