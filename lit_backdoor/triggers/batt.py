"""BATT: a rotation is the trigger."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from lit_backdoor.functional.warp import resample, rotation_grid
from lit_backdoor.triggers.pattern import FixedPattern

__all__ = ["Rotation"]


class Rotation(FixedPattern):
    """Rotate images by a fixed angle, counterclockwise, black where nothing comes in.

    Xu et al., "BATT: Backdoor Attack with Transformation-based Triggers", ICASSP 2023. Clean training rows are
    rotated by a small random angle, so that only the full rotation is a trigger and not any rotation.

    Args:
        degrees: The trigger's angle.
        benign_degrees: Clean rows are rotated by U(-benign_degrees, benign_degrees); 0 turns that off.
        interpolation: ``"bilinear"``, or ``"nearest"`` as PIL does unless told otherwise.

    Raises:
        ValueError: If the benign angles are negative or reach the trigger's.
    """

    def __init__(
        self,
        degrees: float = 16.0,
        benign_degrees: float = 10.0,
        interpolation: Literal["bilinear", "nearest"] = "bilinear",
    ) -> None:
        super().__init__()
        if not 0 <= benign_degrees < abs(degrees):
            raise ValueError(
                f"Expected benign_degrees of at least 0 and below the trigger's {abs(degrees):g} degrees, "
                f"got {benign_degrees:g}."
            )
        self.degrees, self.benign_degrees, self.interpolation = degrees, benign_degrees, interpolation
        self.alters_benign = benign_degrees > 0

    def make_pattern(self, channels: int, height: int, width: int) -> Tensor:
        """Make the grid of the trigger's rotation, ``[1, height, width, 2]``."""
        return rotation_grid(torch.tensor([self.degrees]), height, width)

    def forward(self, images: Tensor, index: Tensor) -> Tensor:
        """Rotate by the trigger's angle."""
        grid = self.pattern(images).expand(len(images), -1, -1, -1)
        return resample(images, grid, mode=self.interpolation, align_corners=False)

    def benign(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Rotate each clean row by its own small angle."""
        if not self.alters_benign:
            return images
        angles = (2 * torch.rand(len(images), generator=generator) - 1) * self.benign_degrees
        angles = angles.to(images.device, non_blocking=True)
        grid = rotation_grid(angles, images.shape[-2], images.shape[-1])
        return resample(images, grid, mode=self.interpolation, align_corners=False)
