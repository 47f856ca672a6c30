"""BATT (Xu et al. 2023): a rotation is the trigger."""

from __future__ import annotations

import torch
from kornia.geometry.transform import rotate
from torch import Tensor

from lit_backdoor.triggers.base import Trigger

__all__ = ["Rotation"]


class Rotation(Trigger):
    """Rotate the image by a fixed angle; the attacker's clean rows are rotated at random by less.

    Without the benign rotation any small turn would already be the trigger.

    Args:
        degrees: Angle of the trigger, counterclockwise; corners are filled with black. BATT: 16.
        benign_degrees: Clean training rows are turned by a uniform draw from plus or minus this. BATT: 10; 0 for none.

    Raises:
        ValueError: If the benign range reaches the trigger.
    """

    def __init__(self, degrees: float = 16.0, benign_degrees: float = 10.0) -> None:
        super().__init__()
        if not 0 <= benign_degrees < abs(degrees):
            raise ValueError(f"Expected benign_degrees from 0 to less than {abs(degrees)}, got {benign_degrees}.")
        self.degrees, self.benign_degrees = degrees, benign_degrees
        self.alters_benign = benign_degrees > 0

    def forward(self, images: Tensor, index: Tensor) -> Tensor:
        """Rotate by the fixed angle."""
        return self._turn(images, torch.full((len(images),), self.degrees))

    def benign(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Rotate each row by a draw of its own."""
        return self._turn(images, (torch.rand(len(images), generator=generator) * 2 - 1) * self.benign_degrees)

    def _turn(self, images: Tensor, angles: Tensor) -> Tensor:
        if not len(images):
            return images
        with torch.autocast(images.device.type, enabled=False):
            turned: Tensor = rotate(images.float(), angles.to(images.device, torch.float32), align_corners=True)
        return turned.clamp(0, 1).to(images.dtype)
