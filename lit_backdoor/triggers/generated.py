"""A net as the trigger: what a trigger inversion produces, and what trained attacks may use."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn

from lit_backdoor.models.space_stamp import SpaceStamp
from lit_backdoor.models.unet import UNet
from lit_backdoor.models.warp_field import WarpField
from lit_backdoor.triggers.base import Trigger

__all__ = ["GeneratorTrigger", "stamped_by"]


class GeneratorTrigger(Trigger):
    """Stamp images by a generator; the row does not matter, so it also serves wherever a generator is asked for.

    Args:
        generator: From images in [0, 1] to triggered images in [0, 1], of the same shape.
    """

    def __init__(self, generator: UNet | WarpField | SpaceStamp) -> None:
        super().__init__()
        self.generator = generator

    def forward(self, images: Tensor, index: Tensor | None = None) -> Tensor:
        """Give the generated images; gradients flow."""
        return cast(Tensor, self.generator(images)).to(images.dtype)


def stamped_by(maker: nn.Module, images: Tensor, index: Tensor) -> Tensor:
    """Put a trigger on images, or let a generator change them.

    Args:
        maker: A `Trigger`, which may depend on the row, or a generator, which does not; as it is, not wrapped.
        images: ``[B, C, H, W]`` in [0, 1].
        index: Rows of the images, int64 ``[B]``.
    """
    return cast(Tensor, maker(images, index) if isinstance(maker, Trigger) else maker(images))
