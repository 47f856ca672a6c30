"""Losses that keep clean samples from being learned as fast as poisoned ones (ABL, Li et al., NeurIPS 2021).

Both act on the mean over the batch, as the release of ABL does for the first and as flooding is defined (Ishida et
al., ICML 2020). The paper's text speaks of the loss of single samples; but that would hold poisoned samples at gamma
as well, and close the gap by which they are found.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from lit_backdoor.functional.precision import full

__all__ = ["flooding", "local_gradient_ascent"]


def local_gradient_ascent(logits: Tensor, target: Tensor, gamma: float = 0.5) -> Tensor:
    r"""Cross-entropy that turns into gradient ascent below a threshold.

    .. math:: \operatorname{sign}(\mathrm{CE} - \gamma) \cdot \mathrm{CE}

    Args:
        logits: ``[B, C]``.
        target: int64 ``[B]``.
        gamma: Threshold in nats. ABL: 0.5.

    Returns:
        Scalar; negative below the threshold.
    """
    loss = F.cross_entropy(full(logits), target)
    return (loss.detach() - gamma).sign() * loss


def flooding(logits: Tensor, target: Tensor, level: float = 0.5) -> Tensor:
    r"""Cross-entropy of the batch that is kept from sinking below a level (Ishida et al., 2020, Eq. 2).

    .. math:: |\mathrm{CE} - b| + b

    Args:
        logits: ``[B, C]``.
        target: int64 ``[B]``.
        level: The level b in nats.

    Returns:
        Scalar, at least ``level``.
    """
    return (F.cross_entropy(full(logits), target) - level).abs() + level
