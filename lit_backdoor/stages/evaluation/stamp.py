"""Evaluation of an attacker's trigger: how much it changes images."""

from __future__ import annotations

from typing import Any

from torchmetrics.image import PeakSignalNoiseRatio, StructuralSimilarityIndexMeasure

from lit_backdoor.stages.evaluation.base import Evaluator
from lit_backdoor.stages.inputs import Batch

__all__ = ["StampEvaluator"]


class StampEvaluator(Evaluator):
    """Measure ``psnr``, in dB, and ``ssim`` of test images with and without the attack's trigger.

    Args:
        data: The data module of the run.
    """

    def __init__(self, data: Any) -> None:
        super().__init__(
            data,
            psnr=PeakSignalNoiseRatio(data_range=1.0),
            ssim=StructuralSimilarityIndexMeasure(data_range=1.0),
        )

    def update(self, batch: Batch) -> None:
        """Compare the images of one batch."""
        valid = batch["valid"]
        if "original" in batch and valid.any():
            for metric in self.metrics.values():
                metric.update(batch["image"][valid], batch["original"][valid])
