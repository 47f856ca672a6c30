"""Evaluation of a detector that reconstructs triggers: the trigger of the class that it names, too."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics.image import PeakSignalNoiseRatio

from lit_backdoor.metrics import AttackSuccessRate
from lit_backdoor.models import Classifier
from lit_backdoor.stages.evaluation.targets import TargetEvaluator
from lit_backdoor.stages.inputs import Batch

__all__ = ["ReconstructionEvaluator"]


class ReconstructionEvaluator(TargetEvaluator):
    """Try the reconstructed trigger of the first flagged class, or else of the top class, on images of other classes.

    Over clean test images, ``reconstructed_asr`` is its success rate on the suspect, and ``reconstructed_psnr`` says
    how close it stays to the images, in dB.

    Args:
        data: The data module of the run.
        flagged: The classes that are flagged.
        top: The most suspicious class.
        suspect: The classifier that was judged.
        trigger: The class's trigger.
    """

    def __init__(self, data: Any, flagged: Sequence[int], top: int, suspect: Classifier, trigger: nn.Module) -> None:
        super().__init__(data, flagged, top, suspect, trigger)
        self.suspect, self.trigger = suspect, trigger
        self.named = flagged[0] if flagged else top
        self.modules["reconstructed_asr"] = AttackSuccessRate()
        self.modules["reconstructed_psnr"] = PeakSignalNoiseRatio(data_range=1.0)

    def to(self, device: torch.device) -> ReconstructionEvaluator:
        """Move the metrics and the trigger."""
        self.trigger.to(device)
        super().to(device)
        return self

    def update(self, batch: Batch) -> None:
        """Stamp the clean images of other classes."""
        super().update(batch)
        images = batch["image"][batch["valid"] & (batch["label"] != self.named)]
        if batch["view"] == "clean" and len(images):
            stamped = self.trigger(images)
            named = torch.full((len(images),), self.named, device=images.device)
            counted = torch.ones_like(named, dtype=torch.bool)
            self.metrics["reconstructed_asr"].update(self.suspect(stamped).float(), named, counted)
            self.metrics["reconstructed_psnr"].update(stamped, images)

    def compute(self) -> dict[str, Tensor]:
        """Add these numbers."""
        return {**super().compute(), **{name: metric.compute() for name, metric in self.metrics.items()}}
