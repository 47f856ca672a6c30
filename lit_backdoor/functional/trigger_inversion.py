"""Triggers of many classes at once: how they are stamped, how large they are, where the classifier sends them.

Neural Cleanse (Wang et al., S&P 2019) and Pixel (Tao et al., CVPR 2022). K counts classes, B images; all is computed in
float32, under autocast too.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from lit_backdoor.functional.precision import full

__all__ = ["Outcomes", "add_change", "changed_pixels", "pixel_penalty", "signed_change", "stamp_mask", "toward_classes"]

LEAST = 1 / 255  # what an 8-bit image can show


def stamp_mask(images: Tensor, mask: Tensor, pattern: Tensor) -> Tensor:
    r"""Blend a pattern in through a mask (Neural Cleanse, Eq. 2): :math:`(1 - m) \odot x + m \odot \Delta`.

    Args:
        images: In [0, 1], ``[B, C, H, W]``.
        mask: In [0, 1], one for all channels, ``[K, 1, H, W]``.
        pattern: In [0, 1], ``[K, C, H, W]``.

    Returns:
        Every image with every trigger, ``[K, B, C, H, W]``.
    """
    mask, pattern = full(mask)[:, None], full(pattern)[:, None]
    return full(images) * (1 - mask) + mask * pattern


def add_change(images: Tensor, change: Tensor) -> Tensor:
    """Add a signed change and stay in [0, 1] (Pixel).

    Args:
        images: In [0, 1], ``[B, C, H, W]``.
        change: In [-1, 1], ``[K, C, H, W]``.

    Returns:
        Every image with every change, ``[K, B, C, H, W]``.
    """
    return (full(images) + full(change)[:, None]).clamp(0, 1)


def signed_change(positive: Tensor, negative: Tensor) -> Tensor:
    """Give the change that Pixel's two patterns make, each held in [0, 1]: what is added less what is taken off."""
    return full(positive).clamp(0, 1) - full(negative).clamp(0, 1)


def pixel_penalty(raw: Tensor) -> Tensor:
    r"""Size of one of Pixel's two patterns: :math:`\sum_{h,w} \max_c \left(\tanh(p_{chw} / 10) / 2 + 1/2\right)`.

    Args:
        raw: The pattern before it is held in [0, 1], ``[K, C, H, W]``.

    Returns:
        ``[K]``, from 0 to H times W.
    """
    return (torch.tanh(full(raw) / 10) / 2 + 0.5).amax(1).sum((1, 2))


def changed_pixels(change: Tensor, least: float = LEAST) -> Tensor:
    """Count the pixels that a change ``[K, C, H, W]`` alters by at least ``least`` in some channel; float ``[K]``."""
    return (change.abs() >= least).any(1).sum((1, 2)).float()


class Outcomes(NamedTuple):
    """Outcome of triggered images, for each of K classes.

    Attributes:
        loss: Mean cross-entropy toward the class, float ``[K]``; 0 where no image counts.
        hits: Images that the classifier gives to the class, int64 ``[K]``.
        rows: Images that count, int64 ``[K]``.
    """

    loss: Tensor
    hits: Tensor
    rows: Tensor


def toward_classes(logits: Tensor, classes: Tensor, counts: Tensor) -> Outcomes:
    """Compare the logits of triggered images with the class of each trigger.

    Args:
        logits: Of every image with every trigger, ``[K, B, num_classes]``.
        classes: The class of each trigger, int64 ``[K]``.
        counts: Which images count for which trigger, bool ``[K, B]``.
    """
    wanted = classes.view(-1, 1)
    places = wanted.expand(counts.shape).unsqueeze(-1)
    errors = -full(logits).log_softmax(-1).gather(-1, places).squeeze(-1)
    rows = counts.sum(1)
    loss = (errors * counts).sum(1) / rows.clamp(min=1)
    return Outcomes(loss, ((logits.argmax(-1) == wanted) & counts).sum(1), rows)
