"""Stimulation of single units of a suspect (ABS, Liu et al., CCS 2019); all is computed in float32.

A unit is a channel of the features that the head takes, at all its positions. B counts images, D units, K classes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from lit_backdoor.functional.precision import full

__all__ = ["Candidates", "candidates", "elevations", "steering_loss"]

Head = Callable[[Tensor], Tensor]


class Candidates(NamedTuple):
    """Units that may be compromised, the most suspicious first; ``[N]`` each.

    Attributes:
        unit: The units, int64.
        label: The class that each one elevates, int64.
        lead: By how much more than any other class.
    """

    unit: Tensor
    label: Tensor
    lead: Tensor


def elevations(head: Head, features: Tensor, levels: Tensor) -> Tensor:
    r"""How far each unit, set to a level, raises the logits of each class above those where it is silent.

    .. math:: e_{dk} = \min_i \max_v \bigl[z_k(h_i \mid h_{id} = v) - z_k(h_i \mid h_{id} = 0)\bigr]

    The smallest over images i counts: a compromised unit works on all of them.

    Args:
        head: From features to logits.
        features: h, ``[B, D, ...]``.
        levels: v, ``[V, D]``.

    Returns:
        ``[D, K]``.
    """
    found = []
    for unit in range(features.shape[1]):
        changed = features.expand(1 + len(levels), *features.shape).clone()
        values = torch.cat((levels.new_zeros(1), levels[:, unit]))
        changed[:, :, unit] = values.view(-1, *(1,) * (changed.ndim - 2)).to(changed)
        logits = full(head(changed.flatten(0, 1))).view(*changed.shape[:2], -1)
        found.append((logits[1:] - logits[0]).amax(0).amin(0))
    return torch.stack(found)


def candidates(raised: Tensor, count: int) -> Candidates:
    """Choose the units that elevate one class most ahead of all others.

    Args:
        raised: What `elevations` gives, ``[D, K]``, K at least 2.
        count: How many; all where there are fewer units.
    """
    best = raised.topk(2, dim=1)
    lead = best.values[:, 0] - best.values[:, 1]
    order = lead.argsort(descending=True, stable=True)[:count]
    return Candidates(order, best.indices[order, 0], lead[order])


def steering_loss(features: Tensor, clean: Tensor, unit: Tensor, mask: Tensor, bound: float, weight: float) -> Tensor:
    r"""Loss of N stamps, each of which is to excite its unit and leave the other ones as they are.

    .. math:: -\frac{\bar h'_d}{\max h_d} + w\, \frac{\mathrm{mean}_{j \ne d} |h'_j - h_j|}{\mathrm{mean}\, |h|}
        + 100 \max(\bar m - \beta, 0)

    Dividing by what clean images have makes the terms comparable, whatever the net.

    Args:
        features: h' of stamped images, ``[N, B, D, ...]``.
        clean: h of clean ones, ``[B, D, ...]``.
        unit: d of each stamp, int64 ``[N]``.
        mask: m of each stamp, in [0, 1], ``[N, 1, H, W]``.
        bound: beta, the share of the image that a stamp may cover.
        weight: w.

    Returns:
        ``[N]``.
    """
    features, clean = full(features).flatten(3), full(clean).flatten(2)
    chosen = torch.arange(len(unit), device=unit.device)
    most = clean.amax((0, 2)).clamp(min=1e-6)
    own = features.mean((1, 3))[chosen, unit] / most[unit]
    change = (features - clean).abs().mean((1, 3))
    others = (change.sum(1) - change[chosen, unit]) / max(1, change.shape[1] - 1)
    excess = (full(mask).mean((1, 2, 3)) - bound).clamp(min=0)
    return -own + weight * others / clean.abs().mean().clamp(min=1e-6) + 100 * excess
