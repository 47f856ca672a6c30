"""Lipschitz bounds of channels."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["channel_lipschitz", "standard_scores"]


def channel_lipschitz(weight: Tensor, scale: Tensor) -> Tensor:
    r"""Bound how fast each channel of a convolution and its batch norm can change (CLP).

    .. math:: \sigma_c = \lVert W_c \rVert_2 \cdot \Bigl| \frac{\gamma_c}{\sqrt{v_c + \epsilon}} \Bigr|

    The norm is the largest singular value of the channel's kernels as a matrix ``[I, K]``, an input channel a row.

    Args:
        weight: Kernels W, ``[O, I, H, W]``.
        scale: What the norm multiplies by, ``[O]``.

    Returns:
        ``[O]``, float32.
    """
    norms: Tensor = torch.linalg.matrix_norm(weight.detach().float().flatten(2), ord=2)
    return norms * scale.detach().float().abs()


def standard_scores(values: Tensor) -> Tensor:
    """Say how many standard deviations each value ``[N]`` lies above their mean; 0 where all are equal."""
    spread = values.std()
    return (values - values.mean()) / spread if spread > 0 else torch.zeros_like(values)
