"""What happens to a batch's images on their device before augmentation."""

from __future__ import annotations

from itertools import chain

import torch
from torch import Tensor
from torch.nn import functional as F

from lit_backdoor.triggers.base import Trigger

__all__ = ["on_device", "plant", "resized"]


def resized(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Bring images ``[B, C, H, W]`` to a size, bilinear with antialiasing."""
    if tuple(images.shape[-2:]) == size:
        return images
    return F.interpolate(images, size, mode="bilinear", antialias=True, align_corners=False).clamp_(0, 1)


def on_device(trigger: Trigger, device: torch.device) -> Trigger:
    """Move a trigger, if it is not there yet, and put it in eval mode."""
    first = next(chain(trigger.parameters(), trigger.buffers()), None)
    if trigger.training or (first is not None and first.device != device):
        with torch.inference_mode(False):  # moved while validating, it must still serve in training
            trigger.to(device).eval()
    return trigger


def plant(
    trigger: Trigger,
    images: Tensor,
    index: Tensor,
    poison: Tensor,
    cover: Tensor,
    generator: torch.Generator | None = None,
    partners: Tensor | None = None,
) -> Tensor:
    """Stamp the planted rows of a training batch, and no other row.

    Args:
        trigger: What is stamped.
        images: Float ``[B, C, H, W]`` in [0, 1]; may be written to.
        index: The rows' positions in their source, int64 ``[B]``.
        poison: Which rows of the batch are poisoned, int64 ``[P]``.
        cover: Which rows are cover samples, int64 ``[Q]``.
        generator: Lets the trigger change the clean rows; None leaves them.
        partners: Second images for a `PairedTrigger`, ``[P + Q, C, H, W]``: the poisoned rows' first.
    """
    # The other rows of `benign` are overwritten: cheaper than looking the clean ones up.
    out = images if generator is None or not trigger.alters_benign else trigger.benign(images, generator)
    cut = len(poison)
    for rows, stamp, pairs in ((poison, trigger.poison, slice(cut)), (cover, trigger.cover, slice(cut, None))):
        if len(rows):
            out[rows] = stamp(images[rows], index[rows], *(() if partners is None else (partners[pairs],)))
    return out
