"""ISSBA: a secret that a net hides in each image is the trigger."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from lit_backdoor.models.steganography import SecretEncoder
from lit_backdoor.triggers.base import Trigger
from lit_backdoor.triggers.pattern import uniform_per_index

__all__ = ["Secret"]


class Secret(Trigger):
    """Hide the same bits in every image by an encoder; what it changes is each image's own.

    Li et al., "Invisible Backdoor Attack with Sample-Specific Triggers", ICCV 2021. The encoder begins untrained.

    Args:
        encoder: Hides the bits.
        seed: Seed of the bits.
    """

    def __init__(self, encoder: SecretEncoder, seed: int = 0) -> None:
        super().__init__()
        self.encoder = encoder
        self.seed = seed

    def bits(self, device: torch.device) -> Tensor:
        """Give the secret, float ``[bits]`` of 0 and 1."""
        return (uniform_per_index(torch.zeros(1, device=device), self.encoder.bits, self.seed)[0] < 0.5).float()

    def forward(self, images: Tensor, index: Tensor) -> Tensor:
        """Hide the secret; gradients flow to the encoder."""
        return cast(Tensor, self.encoder(images, self.bits(images.device).expand(len(images), -1)))
