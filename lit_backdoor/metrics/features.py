"""How close recovered images come to triggered ones, in logits (DoF) and in features (FD)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import Metric

from lit_backdoor.metrics.rows import counting, ratio

__all__ = [
    "DegreeOfFeatureCollisions",
    "FeatureDistance",
    "degree_of_feature_collisions",
    "feature_distance",
]


def _check_pair(first: Tensor, second: Tensor) -> None:
    if first.shape != second.shape or first.ndim < 2:
        raise ValueError(
            f"Expected two tensors of one shape [B, ...], but got {list(first.shape)} and {list(second.shape)}."
        )


def sum_cosines(triggered: Tensor, generated: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Sum the rows' cosines (float32) and count the rows (int64)."""
    _check_pair(triggered, generated)
    rows = counting(mask, triggered)
    cosines = F.cosine_similarity(triggered.float(), generated.float(), dim=1)
    return torch.where(rows, cosines, 0).sum(), rows.sum()


def sum_errors(recovered: Tensor, triggered: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Sum the rows' mean squared differences (float32) and count the rows (int64)."""
    _check_pair(recovered, triggered)
    rows = counting(mask, recovered)
    errors = (recovered.float() - triggered.float()).square().flatten(1).mean(dim=1)
    return torch.where(rows, errors, 0).sum(), rows.sum()


def degree_of_feature_collisions(triggered: Tensor, generated: Tensor, mask: Tensor | None = None) -> Tensor:
    """Compute the degree of feature collisions (DoF), see `DegreeOfFeatureCollisions`.

    Args:
        triggered: The suspect's logits of triggered images, ``[B, C]``.
        generated: Its logits of the same images as the generator makes them, ``[B, C]``.
        mask: Rows that count, bool ``[B]``.

    Returns:
        Scalar in [-1, 1], NaN where no row counts.

    Example:
        >>> degree_of_feature_collisions(torch.tensor([[1.0, 0.0], [1.0, 0.0]]), torch.tensor([[2.0, 0.0], [0.0, 1.0]]))
        tensor(0.5000)
    """
    return ratio(*sum_cosines(triggered, generated, mask))


def feature_distance(recovered: Tensor, triggered: Tensor, mask: Tensor | None = None) -> Tensor:
    """Compute the feature distance (FD), see `FeatureDistance`.

    Args:
        recovered: Features S_a of images with the recovered trigger, ``[B, ...]``.
        triggered: Features S_a of the same images with the true trigger, ``[B, ...]``.
        mask: Rows that count, bool ``[B]``.

    Returns:
        Scalar >= 0, NaN where no row counts.

    Example:
        >>> feature_distance(torch.tensor([[1.0, 0.0], [0.0, 0.0]]), torch.tensor([[3.0, 0.0], [0.0, 0.0]]))
        tensor(1.)
    """
    return ratio(*sum_errors(recovered, triggered, mask))


class _RowMean(Metric):
    """Mean of a number per row."""

    is_differentiable = False
    full_state_update = False
    total: Tensor
    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.tensor(0.0), dist_reduce_fx="sum")
        self.add_state("count", torch.tensor(0), dist_reduce_fx="sum")

    def compute(self) -> Tensor:
        """Return the mean over the rows that counted, a scalar; NaN where there was none."""
        return ratio(self.total, self.count)


class DegreeOfFeatureCollisions(_RowMean):
    r"""Degree of feature collisions (DoF): how alike the suspect sees triggered and generated images.

    .. math:: \mathrm{DoF} = \frac{1}{\sum_i m_i} \sum_i m_i
        \frac{f(b(x_i)) \cdot f(B(x_i))}{\|f(b(x_i))\|\,\|f(B(x_i))\|}

    with the suspect's logits f, the attack's trigger b and the generator B, over the test set (ATClean, Eq. 6). A row
    whose logits are all zero has the cosine 0. Cosines are computed in float32.

    As input to ``update`` the metric accepts

    - ``triggered``: logits of triggered images, ``[B, C]`` of any floating dtype
    - ``generated``: logits of the same images from the generator, ``[B, C]``
    - ``mask``: rows m that count, bool ``[B]``, all if left out

    ``compute`` gives a float32 scalar in [-1, 1], NaN where no row counted.

    Example:
        >>> metric = DegreeOfFeatureCollisions()
        >>> metric.update(torch.tensor([[1.0, 0.0], [1.0, 0.0]]), torch.tensor([[2.0, 0.0], [0.0, 1.0]]))
        >>> metric.compute()
        tensor(0.5000)
    """

    higher_is_better = True
    plot_lower_bound = -1.0
    plot_upper_bound = 1.0

    def update(self, triggered: Tensor, generated: Tensor, mask: Tensor | None = None) -> None:
        """Add a batch of logits."""
        total, count = sum_cosines(triggered, generated, mask)
        self.total += total
        self.count += count


class FeatureDistance(_RowMean):
    r"""Feature distance (FD): how far a recovered trigger is from the true one, seen by the suspect.

    .. math:: \mathrm{FD} = \frac{1}{\sum_i m_i} \sum_i \frac{m_i}{D} \|S_a(G(x_i)) - S_a(b(x_i))\|^2

    with the suspect's features S_a of D elements, the recovered trigger G and the true one b. BTI-DBF (Table 1)
    does not define its distance; this is the mean squared difference over the images that count in ASR.

    As input to ``update`` the metric accepts

    - ``recovered``: features of images with the recovered trigger, ``[B, ...]`` of any floating dtype
    - ``triggered``: features of the same images with the true trigger, same shape
    - ``mask``: rows m that count, bool ``[B]``, all if left out

    ``compute`` gives a float32 scalar >= 0, NaN where no row counted.

    Example:
        >>> metric = FeatureDistance()
        >>> metric.update(torch.tensor([[1.0, 0.0], [0.0, 0.0]]), torch.tensor([[3.0, 0.0], [0.0, 0.0]]))
        >>> metric.compute()
        tensor(1.)
    """

    higher_is_better = False
    plot_lower_bound = 0.0

    def update(self, recovered: Tensor, triggered: Tensor, mask: Tensor | None = None) -> None:
        """Add a batch of features."""
        total, count = sum_errors(recovered, triggered, mask)
        self.total += total
        self.count += count
