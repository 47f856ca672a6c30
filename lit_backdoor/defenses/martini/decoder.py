"""Training of the decoder that MARTINI's trigger needs: reconstruction of clean images, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, get_args

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor
from torch.nn import functional as F
from torchmetrics import Metric
from torchmetrics.image import PeakSignalNoiseRatio, StructuralSimilarityIndexMeasure

from lit_backdoor.errors import one_of
from lit_backdoor.models import AutoEncoder, ConvEncoder, Encoder
from lit_backdoor.stages.base import Batch, Outcome, Stage
from lit_backdoor.stages.optim import Schedule, scheduled

__all__ = ["DecoderTraining"]


class DecoderTraining(Stage):
    """Train a decoder to reconstruct clean images from the maps of a frozen encoder (MARTINI, Tao et al., step 1).

    It sees the ``root`` view only, of the defender's set or of unrelated images, and no suspect, so one decoder serves
    all suspects of its image size.

    Args:
        encoder: The encoder; default a `ConvEncoder`, which is trained along.
        width: Channels of the decoder.
        optimizer: Makes the optimizer; default Adam 2e-3.
        schedule: What the learning rate does over the run.

    Raises:
        ValueError: If the schedule is unknown; when run, if images are not square or the encoder cannot be mirrored.
    """

    kind: ClassVar[str] = "decoder"

    def __init__(
        self,
        encoder: Encoder | None = None,
        width: int = 32,
        optimizer: OptimizerCallable = lambda p: torch.optim.Adam(p, lr=2e-3),
        schedule: Schedule = "cosine",
    ) -> None:
        super().__init__()
        self.encoder = encoder or ConvEncoder()
        self.width = width
        self.optimizer = optimizer
        self.schedule = one_of("schedule", schedule, get_args(Schedule))

    def build(self) -> None:
        """Make the decoder for the data's images."""
        height, width = self.data.image_size
        if height != width:
            raise ValueError(
                f"Expected square images, got {height}x{width}. Set data.stored_size={min(height, width)}."
            )
        self.autoencoder = AutoEncoder(self.encoder, height, self.width)

    def configure_optimizers(self) -> Any:
        """Make the optimizer of what is trained, and its schedule."""
        trained = [weight for weight in self.autoencoder.parameters() if weight.requires_grad]
        return scheduled(self, self.optimizer(trained), self.schedule)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Reconstruct one batch."""
        images = batch["image"]
        loss = F.mse_loss(self.autoencoder(images).float(), images)
        self.log_train(len(images), loss=loss)
        return loss

    def metrics(self) -> dict[str, Metric]:
        """Measure the similarity of images and their reconstructions."""
        return {"psnr": PeakSignalNoiseRatio(data_range=1.0), "ssim": StructuralSimilarityIndexMeasure(data_range=1.0)}

    def evaluate(self, batch: Batch, metrics: Mapping[str, Metric]) -> list[str]:
        """Compare the clean test images with their reconstructions."""
        if batch["view"] != "clean":
            return []
        images = batch["image"][batch["valid"]]
        decoded = self.autoencoder(images).float()
        for metric in metrics.values():
            metric.update(decoded, images)
        return list(metrics)

    def outcome(self) -> Outcome:
        """Hand on encoder and decoder."""
        return Outcome(module=self.autoencoder)
