"""Input-aware: every image has a trigger of its own, which is none on any other image."""

from __future__ import annotations

from typing import cast

from torch import Tensor

from lit_backdoor.functional.input_aware import sharpened
from lit_backdoor.models.unet import UNet
from lit_backdoor.triggers.paired import PairedTrigger

__all__ = ["InputAware"]


class InputAware(PairedTrigger):
    """Blend in a pattern through a mask, both made of the image: ``x' = x + m(x) (g(x) - x)``.

    Nguyen & Tran, "Input-Aware Dynamic Backdoor Attack", NeurIPS 2020. A cover (its cross-trigger sample) gets pattern
    and mask of its partner, under its true label. The nets begin untrained.

    Deviations: both nets are U-Nets; the mask is the mean over the masker's channels, brought close to 0 or 1.

    Args:
        generator: Makes the pattern, from images in [0, 1] to images in [0, 1].
        masker: Makes the mask likewise.
    """

    crosses = True

    def __init__(self, generator: UNet, masker: UNet) -> None:
        super().__init__()
        self.generator = generator
        self.masker = masker

    def masks(self, images: Tensor) -> Tensor:
        """Give the masks of images, ``[B, 1, H, W]`` in [0, 1]."""
        return sharpened(cast(Tensor, self.masker(images)).float().mean(1, keepdim=True))

    def patterns(self, images: Tensor) -> Tensor:
        """Give the patterns of images, ``[B, C, H, W]`` in [0, 1]."""
        return cast(Tensor, self.generator(images))

    def forward(self, images: Tensor, index: Tensor, partners: Tensor | None = None) -> Tensor:
        """Stamp each image with its own trigger; partners are not needed."""
        return self._blended(images, images)

    def cover(self, images: Tensor, index: Tensor, partners: Tensor | None = None) -> Tensor:
        """Stamp each image with its partner's trigger.

        Raises:
            ValueError: If there are no partners.
        """
        return self._blended(images, self.given(partners))

    def _blended(self, images: Tensor, source: Tensor) -> Tensor:
        mask = self.masks(source)
        return (images + mask * (self.patterns(source) - images)).clamp(0, 1).to(images.dtype)
