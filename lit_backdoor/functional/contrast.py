"""Contrast between the features of two nets (MCL, Yue et al., 2023)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from lit_backdoor.functional.precision import full

__all__ = ["model_contrast"]


def model_contrast(features: Tensor, positive: Tensor, negative: Tensor, temperature: float = 0.5) -> Tensor:
    r"""Pull features toward one net's features of clean images, away from those of triggered ones.

    .. math:: -\log \frac{\exp(\cos(z, z^+) / \tau)}{\exp(\cos(z, z^+) / \tau) + \exp(\cos(z, z^-) / \tau)}

    Args:
        features: z, ``[B, d]``.
        positive: :math:`z^+`, ``[B, d]``.
        negative: :math:`z^-`, ``[B, d]``.
        temperature: tau > 0.

    Returns:
        The mean over the batch.
    """
    cosines = [F.cosine_similarity(full(features), full(other)) for other in (positive, negative)]
    return F.cross_entropy(torch.stack(cosines, 1) / temperature, torch.zeros_like(cosines[0]).long())
