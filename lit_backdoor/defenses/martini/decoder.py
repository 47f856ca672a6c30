"""Training of the decoder that MARTINI's trigger needs: reconstruction of clean images, and nothing else."""

from __future__ import annotations

from typing import Any, ClassVar, get_args

from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Adam, Optimizer

from lit_backdoor.errors import one_of
from lit_backdoor.models import AutoEncoder, ConvEncoder, Encoder
from lit_backdoor.stages.base import Batch, Stage
from lit_backdoor.stages.evaluation import DecoderEvaluator, Evaluator
from lit_backdoor.stages.optim import Schedule, scheduled

__all__ = ["DecoderTraining"]


def adam_for_decoders(parameters: Any) -> Optimizer:
    """Make Adam for decoders, at 2e-3."""
    return Adam(parameters, lr=2e-3)


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

    kind: ClassVar[str | None] = "decoder"

    def __init__(
        self,
        encoder: Encoder | None = None,
        width: int = 32,
        optimizer: OptimizerCallable = adam_for_decoders,
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

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Compute the mean squared error of one batch's reconstructions."""
        return {"loss": F.mse_loss(self.autoencoder(batch["image"]).float(), batch["image"])}

    def result(self) -> nn.Module:
        """Give encoder and decoder."""
        return self.autoencoder

    def evaluator(self) -> Evaluator:
        """Measure how similar images and their reconstructions are."""
        return DecoderEvaluator(self.attached_data, self.autoencoder)
