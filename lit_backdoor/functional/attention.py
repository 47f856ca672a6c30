"""Attention maps of layers and their distance (Zagoruyko and Komodakis, ICLR 2017; NAD, Li et al., ICLR 2021)."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from lit_backdoor.functional.precision import full

__all__ = ["attention_distance", "attention_map"]


def attention_map(outputs: Tensor, power: float = 2.0) -> Tensor:
    r"""Sum the powers of a layer's activations over its channels, and bring the map to unit length.

    .. math:: A(F) = \sum_c |F_c|^p, \qquad a(F) = \frac{A(F)}{\lVert A(F) \rVert_2}

    Args:
        outputs: F, ``[B, C, H, W]``, or ``[B, N, C]`` of a transformer.
        power: p. NAD: 2.

    Returns:
        ``[B, positions]``, float32.
    """
    channels = 1 if outputs.ndim == 4 else -1
    return F.normalize(full(outputs).abs().pow(power).sum(channels).flatten(1), dim=1)


def attention_distance(student: Tensor, teacher: Tensor, power: float = 2.0) -> Tensor:
    """Compute the mean squared difference of two layers' attention maps over images and positions (NAD, Eq. 3).

    The mean over positions is that of NAD's release, whose weights fit it; the paper writes a norm.

    Args:
        student: ``[B, C, H, W]`` or ``[B, N, C]``.
        teacher: The same layer of the other net.
        power: p. NAD: 2.

    Returns:
        Scalar.
    """
    return F.mse_loss(attention_map(student, power), attention_map(teacher, power))
