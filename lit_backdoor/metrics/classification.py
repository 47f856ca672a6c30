"""Shares of predictions that equal a label: ACC, ASR and RA."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import Metric

from lit_backdoor.metrics.rows import classes, counting, ratio

__all__ = [
    "Accuracy",
    "AttackSuccessRate",
    "RobustAccuracy",
    "accuracy",
    "attack_success_rate",
    "robust_accuracy",
]


def count_equal(preds: Tensor, target: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Count the rows predicted as ``target`` and the rows that count, int64 scalars."""
    preds = classes(preds, target)
    rows = counting(mask, preds)
    return ((preds == target) & rows).sum(), rows.sum()


def accuracy(preds: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
    """Compute clean accuracy (ACC), see `Accuracy`.

    Args:
        preds: Logits ``[B, C]`` or classes ``[B]``.
        target: True labels, integer ``[B]``.
        mask: Rows that count, bool ``[B]``.

    Returns:
        Scalar in [0, 1], NaN where no row counts.

    Example:
        >>> accuracy(torch.tensor([0, 1, 2, 2]), torch.tensor([0, 1, 2, 0]))
        tensor(0.7500)
    """
    return ratio(*count_equal(preds, target, mask))


def attack_success_rate(preds: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
    """Compute the attack success rate (ASR), see `AttackSuccessRate`.

    Args:
        preds: Logits ``[B, C]`` or classes ``[B]`` of triggered images.
        target: The attack's labels, integer ``[B]``.
        mask: Rows that count, bool ``[B]``: those the attack is meant for.

    Returns:
        Scalar in [0, 1], NaN where no row counts.

    Example:
        >>> truth, preds = torch.tensor([0, 1, 2, 3]), torch.tensor([0, 0, 0, 3])
        >>> attack_success_rate(preds, torch.zeros(4, dtype=torch.long), mask=truth != 0)
        tensor(0.6667)
    """
    return ratio(*count_equal(preds, target, mask))


def robust_accuracy(preds: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
    """Compute robust accuracy (RA), see `RobustAccuracy`.

    Args:
        preds: Logits ``[B, C]`` or classes ``[B]`` of triggered images.
        target: True labels, integer ``[B]``.
        mask: Rows that count, bool ``[B]``: the same as for ASR.

    Returns:
        Scalar in [0, 1], NaN where no row counts.

    Example:
        >>> truth, preds = torch.tensor([0, 1, 2, 3]), torch.tensor([0, 0, 0, 3])
        >>> robust_accuracy(preds, truth, mask=truth != 0)
        tensor(0.3333)
    """
    return ratio(*count_equal(preds, target, mask))


class _Share(Metric):
    """Rows predicted as their label over rows that count."""

    is_differentiable = False
    full_state_update = False
    plot_lower_bound = 0.0
    plot_upper_bound = 1.0
    correct: Tensor
    total: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("correct", torch.tensor(0), dist_reduce_fx="sum")
        self.add_state("total", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, preds: Tensor, target: Tensor, mask: Tensor | None = None) -> None:
        """Add a batch; the class says what ``preds``, ``target`` and ``mask`` are."""
        correct, total = count_equal(preds, target, mask)
        self.correct += correct
        self.total += total

    def compute(self) -> Tensor:
        """Return the share, a scalar; NaN where no row counted."""
        return ratio(self.correct, self.total)


class Accuracy(_Share):
    r"""Clean accuracy (ACC; CA or BA in some papers): the share of clean images predicted right.

    .. math:: \mathrm{ACC} = \frac{\sum_i m_i\,[\hat y_i = y_i]}{\sum_i m_i}

    As input to ``update`` the metric accepts

    - ``preds``: logits ``[B, C]`` of any floating dtype, or integer classes ``[B]``
    - ``target``: true labels y, integer ``[B]``
    - ``mask``: rows m that count, bool ``[B]``, all if left out

    ``compute`` gives a float32 scalar in [0, 1], NaN where no row counted.

    Example:
        >>> metric = Accuracy()
        >>> metric.update(torch.tensor([[2.0, 1.0], [0.0, 3.0]]), torch.tensor([0, 0]))
        >>> metric.compute()
        tensor(0.5000)
    """

    higher_is_better = True


class AttackSuccessRate(_Share):
    r"""Attack success rate (ASR): the share of triggered images predicted as the attack wants.

    .. math:: \mathrm{ASR} = \frac{\sum_i m_i\,[\hat y'_i = t_i]}{\sum_i m_i}

    The mask leaves out the rows whose true label already is the attack's label (all-to-one), counts every row
    (all-to-all) or only the source class (label-specific); ``LabelPolicy.eligible`` says which.

    As input to ``update`` the metric accepts

    - ``preds``: logits ``[B, C]`` of triggered images, or integer classes ``[B]``
    - ``target``: the attack's labels t, integer ``[B]``
    - ``mask``: rows m that count, bool ``[B]``, all if left out

    ``compute`` gives a float32 scalar in [0, 1], NaN where no row counted. Lower is better for the defender.

    Example:
        >>> metric = AttackSuccessRate()
        >>> truth, preds = torch.tensor([0, 1, 2, 3]), torch.tensor([0, 0, 0, 3])
        >>> metric.update(preds, torch.zeros(4, dtype=torch.long), mask=truth != 0)
        >>> metric.compute()
        tensor(0.6667)
    """

    higher_is_better = False


class RobustAccuracy(_Share):
    r"""Robust accuracy (RA; R-ACC): the share of triggered images predicted as what they show.

    .. math:: \mathrm{RA} = \frac{\sum_i m_i\,[\hat y'_i = y_i]}{\sum_i m_i}

    Over the same rows as ASR, so ASR + RA <= 1 wherever the attack's label differs from the true one.

    As input to ``update`` the metric accepts

    - ``preds``: logits ``[B, C]`` of triggered images, or integer classes ``[B]``
    - ``target``: true labels y, integer ``[B]``
    - ``mask``: rows m that count, bool ``[B]``, all if left out

    ``compute`` gives a float32 scalar in [0, 1], NaN where no row counted.

    Example:
        >>> metric = RobustAccuracy()
        >>> truth, preds = torch.tensor([0, 1, 2, 3]), torch.tensor([0, 0, 0, 3])
        >>> metric.update(preds, truth, mask=truth != 0)
        >>> metric.compute()
        tensor(0.3333)
    """

    higher_is_better = True
