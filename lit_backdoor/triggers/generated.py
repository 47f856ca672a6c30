"""A net as the trigger: what a trigger inversion leaves, and what trained attacks may use."""

from __future__ import annotations

from typing import cast

from torch import Tensor

from lit_backdoor.models.unet import UNet
from lit_backdoor.triggers.base import Trigger

__all__ = ["GeneratorTrigger"]


class GeneratorTrigger(Trigger):
    """Stamp images by a generator; the row does not matter, so it also serves wherever a generator is asked for.

    Args:
        generator: From images in [0, 1] to triggered images in [0, 1], of the same shape.
    """

    def __init__(self, generator: UNet) -> None:
        super().__init__()
        self.generator = generator

    def forward(self, images: Tensor, index: Tensor | None = None) -> Tensor:
        """Give the generated images; gradients flow."""
        return cast(Tensor, self.generator(images)).to(images.dtype)
