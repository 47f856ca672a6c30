"""Inversion of triggers in feature space (FeatureRE, Wang et al., NeurIPS 2022; Unicorn, Wang et al., ICLR 2023).

A mask m divides a suspect's features h: a trigger acts under the mask, the rest is benign. All is computed in float32,
under autocast too.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from lit_backdoor.functional.precision import full

__all__ = [
    "Bounds",
    "Measures",
    "excess",
    "generator_loss",
    "likeness",
    "mask_loss",
    "masked_spread",
    "mixed",
    "mixed_value",
]


class Bounds(NamedTuple):
    """What a trigger must satisfy.

    Attributes:
        success: Share of images that reach the class, at least.
        change: Difference of triggered from clean images, at most.
        spread: `masked_spread`, at most.
        mask: Mean of the mask, at most.
    """

    success: float
    change: float
    spread: float
    mask: float


class Measures(NamedTuple):
    """What is measured of a trigger, scalars; or the averages of many, ``[K]``.

    Attributes:
        success: Share of images that reach the class.
        likeness: `likeness` of triggered images to the class.
        change: Difference of triggered from clean images.
        spread: `masked_spread`.
        mask: Mean of the mask.
    """

    success: Tensor
    likeness: Tensor
    change: Tensor
    spread: Tensor
    mask: Tensor


def mixed(features: Tensor, reference: Tensor, mask: Tensor) -> Tensor:
    r"""Put other images' features in the place of those outside the mask: :math:`m \odot h + (1 - m) \odot h'`."""
    return full(features) * mask + full(reference) * (1 - mask)


def masked_spread(features: Tensor, mask: Tensor) -> Tensor:
    r"""Deviation over the batch of features under a mask: :math:`\sum_j \mathrm{std}_i(m_j h_{ij}) / \|m\|_1`.

    A trigger takes all images to one point of the masked features, so it is small.
    """
    return (full(features) * mask).std(0).sum() / mask.sum()


def likeness(features: Tensor, center: Tensor) -> Tensor:
    """Cosine of a batch's mean features and the mean features ``center`` of clean images of a class."""
    return torch.cosine_similarity(full(features).mean(0).flatten(), full(center).flatten(), dim=0)


def excess(value: Tensor, bound: float) -> Tensor:
    """By what share of a bound a value is above it; 0 within it."""
    return (value - bound).clamp(min=0) / bound


def generator_loss(entropy: Tensor, found: Measures, bounds: Bounds, last: Measures, weight: float) -> Tensor:
    r"""Loss of what makes triggered images, for one class, as the releases have it.

    .. math:: w \max(c, 0) + 10 (1 + e_d)\, d\,[d > \delta] + 10 (1 + e_s)\, s\,[s > \sigma]
        + (1 + e_a)\, \mathrm{CE}\,[a < \alpha]

    with likeness c, change d, spread s and success a. Bounds that hold add nothing; the others' weights grow with their
    excess e in the last epoch.

    Args:
        entropy: CE toward the class.
        found: Of the batch.
        bounds: The bounds.
        last: Averages of the last epoch, scalars.
        weight: w.
    """
    missing = (bounds.success - last.success).clamp(min=0) / bounds.success
    loss = weight * found.likeness.clamp(min=0)
    loss = loss + 10 * (1 + excess(last.change, bounds.change)) * found.change * (found.change > bounds.change)
    loss = loss + 10 * (1 + excess(last.spread, bounds.spread)) * found.spread * (found.spread > bounds.spread)
    return loss + (1 + missing) * entropy * (found.success < bounds.success)


def mask_loss(logits: Tensor, target: Tensor, mask: Tensor, bound: float) -> Tensor:
    r"""Loss of the mask: cross-entropy toward the class, and :math:`\|m\|_1` while its mean is above a bound."""
    return F.cross_entropy(full(logits), target) + mask.sum() * (mask.mean() > bound)


def mixed_value(found: Measures, bounds: Bounds) -> Tensor:
    """Likeness less success, plus the excess of every broken bound (FeatureRE's release); small for a backdoor."""
    broken = (excess(getattr(found, name), getattr(bounds, name)) for name in ("change", "spread", "mask"))
    return found.likeness - found.success + sum(broken, torch.zeros_like(found.success))
