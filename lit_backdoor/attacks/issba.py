"""ISSBA: the encoder that hides a secret is trained first, with a decoder that reads it.

Li et al., "Invisible Backdoor Attack with Sample-Specific Triggers", ICCV 2021.
"""

from __future__ import annotations

from typing import ClassVar, cast

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn
from torch.nn import functional as F

from lit_backdoor.models.steganography import SecretDecoder
from lit_backdoor.stages.base import Batch
from lit_backdoor.stages.optim import Schedule, adam_for_generators
from lit_backdoor.stages.trigger_training import TriggerTraining
from lit_backdoor.triggers import Secret, Trigger

__all__ = ["ISSBATraining"]


class ISSBATraining(TriggerTraining):
    r"""Train the encoder of a `Secret` trigger on random bits, with a decoder that is not kept.

    .. math:: \ell = \lambda_b \operatorname{BCE}(d(e(x, s)), s) + \lambda_i \lVert e(x, s) - x \rVert^2

    In the first epochs only the bits count, as in the release.

    Deviations: small nets; in place of the paper's perceptual loss (LPIPS) the encoder has a bound on each pixel's
    change.

    Args:
        bits_weight: Weight :math:`\lambda_b`, > 0. Release: 1.5.
        image_weight: Weight :math:`\lambda_i` of the mean squared change, >= 0. Release: 2.
        bits_first: Share of the epochs in which only the bits count, in [0, 1]. Release: .1.
        optimizer: Makes the optimizer; default Adam 1e-3.
        schedule: What the learning rate does over the run.

    Raises:
        ValueError: If a weight or the share is out of range; when run, if the trigger is another.
    """

    changes: ClassVar[type[Trigger]] = Secret

    def __init__(
        self,
        bits_weight: float = 1.5,
        image_weight: float = 2.0,
        bits_first: float = 0.1,
        optimizer: OptimizerCallable = adam_for_generators,
        schedule: Schedule = "constant",
    ) -> None:
        super().__init__(optimizer, schedule)
        if not (bits_weight > 0 and image_weight >= 0 and 0 <= bits_first <= 1):
            raise ValueError(
                f"Expected bits_weight above 0, image_weight of 0 or more and bits_first in [0, 1], got {bits_weight}, "
                f"{image_weight} and {bits_first}."
            )
        self.bits_weight, self.image_weight, self.bits_first = bits_weight, image_weight, bits_first

    def build(self) -> None:
        """Take the trigger, and make a decoder for its bits."""
        self.take_trigger()
        encoder = cast(Secret, self.trigger).encoder
        self.decoder = SecretDecoder(encoder.bits, channels=encoder.channels)
        super().build()

    def nets(self) -> nn.Module:
        """Give encoder and decoder."""
        return nn.ModuleList([self.trigger, self.decoder])

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Compute the loss for random bits."""
        images, encoder = batch["image"], cast(Secret, self.trigger).encoder
        bits = torch.randint(2, (len(images), encoder.bits), device=images.device).float()
        hidden = encoder(images, bits)
        read = self.decoder(hidden).float()
        of_bits, change = F.binary_cross_entropy_with_logits(read, bits), F.mse_loss(hidden.float(), images)
        begun = self.current_epoch >= self.bits_first * (self.trainer.max_epochs or 1)
        return {
            "loss": self.bits_weight * of_bits + (self.image_weight * change if begun else 0),
            "bits_loss": of_bits,
            "image_loss": change,
            "bits_right": ((read > 0) == (bits > 0)).float().mean(),
        }
