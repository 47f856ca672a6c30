"""Evaluation of a decoder: how well it reconstructs images."""

from __future__ import annotations

from typing import Any

from torchmetrics.image import PeakSignalNoiseRatio, StructuralSimilarityIndexMeasure

from lit_backdoor.models import AutoEncoder
from lit_backdoor.stages.evaluation.base import Evaluator
from lit_backdoor.stages.inputs import Batch

__all__ = ["DecoderEvaluator"]


class DecoderEvaluator(Evaluator):
    """Measure ``psnr`` and ``ssim`` of clean test images and their reconstructions.

    Args:
        data: The data module of the run.
        autoencoder: Encoder and decoder.
    """

    def __init__(self, data: Any, autoencoder: AutoEncoder) -> None:
        super().__init__(
            data,
            psnr=PeakSignalNoiseRatio(data_range=1.0),
            ssim=StructuralSimilarityIndexMeasure(data_range=1.0),
        )
        self.autoencoder = autoencoder

    def update(self, batch: Batch) -> None:
        """Compare the images of one batch with their reconstructions."""
        if batch["view"] == "clean":
            images = batch["image"][batch["valid"]]
            decoded = self.autoencoder(images).float()
            for metric in self.metrics.values():
                metric.update(decoded, images)
