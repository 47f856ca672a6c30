"""COMBAT's trigger: a net's noise without high frequencies."""

from __future__ import annotations

from typing import cast

from torch import Tensor
from torch.nn import functional as F

from lit_backdoor.errors import check_share
from lit_backdoor.functional.frequency import low_pass
from lit_backdoor.functional.precision import full, no_autocast
from lit_backdoor.models.unet import UNet
from lit_backdoor.triggers.base import Trigger

__all__ = ["SmoothNoise"]

_BLUR = (0.11, 0.78, 0.11)  # about a Gaussian of .5 px


class SmoothNoise(Trigger):
    """Add the low frequencies of a net's noise, then blur: ``x' = blur(clip(x + a n(x)))`` with n in [-1, 1].

    Huynh et al., "COMBAT: Alternated Training for Effective Clean-Label Backdoor Attacks", AAAI 2024. The net begins
    untrained.

    Args:
        generator: Makes an image g of an image, both in [0, 1]; the noise is 2 g - 1.
        strength: Weight a of the noise, in (0, 1]. Paper: .08 for images in [-1, 1], here .04.
        kept: Share of the frequencies of each axis that the noise keeps, in (0, 1]. Paper: .65.

    Raises:
        ValueError: If a share is out of range.
    """

    def __init__(self, generator: UNet, strength: float = 0.04, kept: float = 0.65) -> None:
        super().__init__()
        self.generator = generator
        self.strength = check_share("strength of SmoothNoise", strength, closed=True)
        self.kept = check_share("kept of SmoothNoise", kept, closed=True)

    def noise(self, images: Tensor) -> Tensor:
        """Give the noise of images, ``[B, C, H, W]``."""
        return low_pass(2 * cast(Tensor, self.generator(images)).float() - 1, self.kept)

    def forward(self, images: Tensor, index: Tensor) -> Tensor:
        """Add the noise and blur; gradients flow to the net."""
        changed = full(images + self.strength * self.noise(images)).clamp(0, 1)
        weights = changed.new_tensor(_BLUR)
        kernel = (weights[:, None] * weights).expand(images.shape[1], 1, 3, 3)
        padded = F.pad(changed, (1, 1, 1, 1), mode="reflect")
        with no_autocast(images):
            return F.conv2d(padded, kernel, groups=images.shape[1]).clamp(0, 1).to(images.dtype)
