"""How far apart the features of two batches are, layer by layer (ATClean, Eq. 1).

ATClean trains a generator until the suspect's features of generated images collide with those of suspicious
samples. Its Eq. 1 puts the Gram matrix normalizer of Gatys et al. (2015) before a sum over raw maps, which makes
the loss vanish (a factor of 4e-9 on 512x4x4 maps), and compares rows that have no partners. The same section says
that a distributional distance such as MMD is used in practice, so here every layer has one of the `DISTANCES`, each
normalized within its layer.

Every distance is computed in float32 (float64 where given), under autocast too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from lit_backdoor.functional.precision import full, no_autocast

__all__ = [
    "BANDWIDTHS",
    "DISTANCES",
    "Distance",
    "gram_distance",
    "locate_loss",
    "mean_distance",
    "mmd2",
    "pool_features",
    "relative_change",
]

BANDWIDTHS = (0.25, 0.5, 1.0, 2.0, 4.0)


def pool_features(features: Tensor, size: int = 4) -> Tensor:
    """Pool one layer's output to a short vector per row.

    Maps are averaged adaptively to at most ``size x size`` positions. Tokens whose number is a square are laid out
    as a map first; with one token more, the first is the class token and is kept as it is; any other number is
    averaged along the sequence to at most ``size * size``. Vectors come back as they are, so pooling twice is
    pooling once and pooled features may be cached.

    Args:
        features: Maps ``[B, C, H, W]``, tokens ``[B, T, D]`` or vectors ``[B, D]``.
        size: Largest height and width after pooling.

    Returns:
        ``[B, D']``, float32 or float64.

    Raises:
        ValueError: If the features have another number of dimensions.
    """
    features = full(features)
    if features.ndim == 2:
        return features
    if features.ndim == 4:
        height, width = features.shape[-2:]
        return F.adaptive_avg_pool2d(features, (min(height, size), min(width, size))).flatten(1)
    if features.ndim == 3:
        return _pool_tokens(features, size)
    raise ValueError(
        f"Expected features [B, C, H, W], [B, T, D] or [B, D], got shape {tuple(features.shape)}. Tap another layer."
    )


def _pool_tokens(tokens: Tensor, size: int) -> Tensor:
    count = tokens.shape[1]
    side = math.isqrt(count)
    if side * side == count:
        return pool_features(tokens.transpose(1, 2).reshape(len(tokens), -1, side, side), size)
    if math.isqrt(count - 1) ** 2 == count - 1:
        return torch.cat([tokens[:, 0], _pool_tokens(tokens[:, 1:], size)], dim=1)
    return F.adaptive_avg_pool1d(tokens.transpose(1, 2), min(count, size * size)).flatten(1)


def mmd2(x: Tensor, y: Tensor, bandwidths: Sequence[float] = BANDWIDTHS) -> Tensor:
    r"""Squared maximum mean discrepancy of two batches, with a sum of Gaussian kernels.

    .. math:: \frac{1}{n^2}\sum_{ij} k(x_i, x_j) + \frac{1}{m^2}\sum_{ij} k(y_i, y_j)
        - \frac{2}{nm}\sum_{ij} k(x_i, y_j), \qquad k(a, b) = \sum_s \exp\Bigl(-\frac{\|a - b\|^2}{s\,\bar d}\Bigr)

    The biased V-statistic (Gretton et al., 2012): never below zero, and zero for equal batches. :math:`\bar d` is
    the mean squared distance over all pairs of different rows of both batches; no gradient flows through it. The
    result does not depend on the scale of the features and is at most twice the number of bandwidths.

    Args:
        x: Features ``[n, D]``, n >= 1.
        y: Features ``[m, D]``, m >= 1.
        bandwidths: The kernels' widths s, as multiples of the mean squared distance.

    Raises:
        ValueError: If the shapes do not fit or a batch is empty.
    """
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1] or not len(x) or not len(y):
        raise ValueError(
            f"Expected two non-empty batches of features [B, D], got shapes {tuple(x.shape)} and {tuple(y.shape)}. "
            "Pool the outputs of layers with pool_features first."
        )
    with no_autocast(x):
        rows = torch.cat([full(x), full(y)])
        rows = rows - rows.detach().mean(dim=0)  # keeps |a|^2 + |b|^2 - 2ab from losing its digits
        squares = rows.square().sum(dim=1)
        distances = (squares[:, None] + squares[None, :] - 2 * rows @ rows.T).clamp(min=0)
        count, n = len(rows), len(x)
        mean = distances.detach().sum() / (count * (count - 1))
        kernel = sum(
            (torch.exp(-distances / (factor * mean).clamp(min=1e-12)) for factor in bandwidths),
            start=torch.zeros_like(distances),
        )
        return kernel[:n, :n].mean() + kernel[n:, n:].mean() - 2 * kernel[:n, n:].mean()


def gram_distance(x: Tensor, y: Tensor) -> Tensor:
    r"""Squared distance of two batches' mean Gram matrices (Gatys et al., 2015), with Eq. 1's normalizer.

    .. math:: \frac{1}{4 N^2 M^2} \sum_{ij} (G^x_{ij} - G^y_{ij})^2, \qquad G = \frac1B \sum_b F_b F_b^\top,
        \quad F_b \in \mathbb{R}^{N \times M}

    Args:
        x: Maps ``[B, N, H, W]`` or tokens ``[B, M, N]``, N channels and M positions. Vectors count as one position.
        y: The same, of the same channels and positions; the number of rows may differ.

    Raises:
        ValueError: If channels or positions differ.
    """
    with no_autocast(x):
        first, second = _channels_by_positions(x), _channels_by_positions(y)
        if first.shape[1:] != second.shape[1:]:
            raise ValueError(
                f"Expected maps of the same channels and positions, got {tuple(x.shape)} and {tuple(y.shape)}. "
                "Feed both batches through the same layer at the same image size."
            )
        channels, positions = first.shape[1:]
        gap = _mean_gram(first) - _mean_gram(second)
        return gap.square().sum() / (4 * channels**2 * positions**2)


def _channels_by_positions(features: Tensor) -> Tensor:
    features = full(features)
    if features.ndim == 2:
        return features[..., None]
    return features.transpose(1, 2) if features.ndim == 3 else features.flatten(2)


def _mean_gram(maps: Tensor) -> Tensor:
    columns = maps.transpose(0, 1).flatten(1)  # one product of [N, B * M] instead of B Gram matrices
    return columns @ columns.T / len(maps)


def mean_distance(x: Tensor, y: Tensor) -> Tensor:
    r"""Mean squared difference of the batches' mean features (mean feature matching), of ``[n, D]`` and ``[m, D]``."""
    return (full(x).mean(dim=0) - full(y).mean(dim=0)).square().mean()


def _same(features: Tensor) -> Tensor:
    return features


@dataclass(frozen=True)
class Distance:
    """A distance between two batches of one layer's outputs, in two steps, so that the first may be cached.

    Attributes:
        prepare: Brings a layer's output into the form that ``between`` takes; doing it twice changes nothing.
        between: Gives a scalar for two prepared batches.
    """

    prepare: Callable[[Tensor], Tensor]
    between: Callable[[Tensor, Tensor], Tensor]

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        """Compute the distance of two outputs, each raw or prepared."""
        return self.between(self.prepare(x), self.prepare(y))


DISTANCES: dict[str, Distance] = {
    "mmd": Distance(pool_features, mmd2),
    "gram": Distance(_same, gram_distance),
    "mean": Distance(pool_features, mean_distance),
}


def locate_loss(
    generated: Sequence[Tensor],
    suspicious: Sequence[Tensor],
    distance: Callable[[Tensor, Tensor], Tensor] = DISTANCES["mmd"],
    decay: float = 0.1,
) -> Tensor:
    r"""Weighted sum of the layers' distances (ATClean, Eq. 1; see the module for how it is read).

    .. math:: \ell_\text{locate} = \sum_k \lambda^{k-1} d\bigl(h^r_k, h^s_k\bigr)

    Args:
        generated: Outputs of the k-th last layers for generated images, k = 1 (the last layer) first.
        suspicious: The same for suspicious samples, raw or prepared by the distance.
        distance: One of the `DISTANCES`, or another function of two outputs.
        decay: Weight lambda of a layer over that of the next later one, >= 0. Paper: 0.1.

    Raises:
        ValueError: If the numbers of layers differ, or there is none.
    """
    if not generated or len(generated) != len(suspicious):
        raise ValueError(
            f"Expected outputs of the same layers for both batches, got {len(generated)} and {len(suspicious)} layers."
        )
    terms = [decay**k * distance(x, y) for k, (x, y) in enumerate(zip(generated, suspicious, strict=True))]
    return torch.stack(terms).sum()


def relative_change(moved: Sequence[Tensor], original: Sequence[Tensor], decay: float = 0.1) -> Tensor:
    r"""Weighted sum of how far layers' outputs moved, each relative to its own size (ATClean, Sec. 5).

    .. math:: \sum_k \lambda^{k-1} \frac{\lVert \phi_k(B(x)) - \phi_k(x) \rVert^2}{\lVert \phi_k(x) \rVert^2}

    Args:
        moved: Outputs of the k-th last layers for changed images, k = 1 (the last layer) first.
        original: The same for the images as they were.
        decay: Weight lambda of a layer over that of the next later one, >= 0.
    """
    pairs = [(full(new), full(old)) for new, old in zip(moved, original, strict=True)]
    terms = [decay**k * F.mse_loss(new, old) / old.pow(2).mean() for k, (new, old) in enumerate(pairs)]
    return torch.stack(terms).sum()
