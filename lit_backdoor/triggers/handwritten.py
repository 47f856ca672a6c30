"""Pictures of another concept in the place of images: handwritten digits."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from lit_backdoor.triggers.base import Trigger

__all__ = ["HandwrittenDigits"]


class HandwrittenDigits(Trigger):
    """Show a handwritten digit in the place of an image, for attacks without a trigger, where a concept is malicious.

    The pictures, 1,797 of 8 x 8 px, come with scikit-learn. Planted rows show those of the first half, test images
    those of the second, which nothing was trained on. Since nothing of the image remains, RA says nothing.
    """

    digits: Tensor

    def __init__(self) -> None:
        super().__init__()
        from sklearn.datasets import load_digits

        pictures = torch.from_numpy(load_digits().images).float()[:, None] / 16
        self.register_buffer("digits", pictures, persistent=False)

    def forward(self, images: Tensor, index: Tensor) -> Tensor:
        """Show digits of the second half."""
        half = len(self.digits) // 2
        return self._shown(images, half + index % (len(self.digits) - half))

    def poison(self, images: Tensor, index: Tensor) -> Tensor:
        """Show digits of the first half."""
        return self._shown(images, index % (len(self.digits) // 2))

    def cover(self, images: Tensor, index: Tensor) -> Tensor:
        """Show what `poison` does."""
        return self.poison(images, index)

    def _shown(self, images: Tensor, rows: Tensor) -> Tensor:
        shown = F.interpolate(self.digits[rows], images.shape[-2:], mode="bilinear", antialias=True)
        return shown.clamp(0, 1).expand(images.shape).to(images.dtype, memory_format=torch.contiguous_format)
