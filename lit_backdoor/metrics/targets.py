"""Which class a recovered trigger points at, and how often that is the attack's: votes and DSR."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import Metric

from lit_backdoor.metrics.classification import count_equal
from lit_backdoor.metrics.rows import classes, counting, ratio

__all__ = ["DetectionSuccessRate", "TargetVotes", "detection_success_rate", "target_votes"]


def count_votes(preds: Tensor, num_classes: int, mask: Tensor | None = None) -> Tensor:
    """Count the predictions of each class, int64 ``[num_classes]``."""
    preds = classes(preds)
    rows = counting(mask, preds)
    votes = torch.zeros(num_classes, dtype=torch.long, device=preds.device)
    return votes.scatter_add_(0, preds.long(), rows.long())


def winner(votes: Tensor) -> dict[str, Tensor]:
    """Return the class with most votes, the first of equals, -1 without votes, and its share."""
    total, most = votes.sum(), votes.max()
    index = torch.arange(len(votes), device=votes.device)
    first = torch.where(votes == most, index, len(votes)).min()
    return {"target": torch.where(total > 0, first, -1), "share": ratio(most, total)}


def target_votes(preds: Tensor, num_classes: int, mask: Tensor | None = None) -> dict[str, Tensor]:
    """Find the class most often predicted on recovered images, see `TargetVotes`.

    Args:
        preds: Logits ``[B, C]`` or classes ``[B]`` of images with a recovered trigger.
        num_classes: Number of classes.
        mask: Rows that count, bool ``[B]``.

    Returns:
        ``target``, int64 scalar, -1 where no row counts, and ``share`` of the votes, NaN where no row counts.

    Example:
        >>> target_votes(torch.tensor([3, 3, 1, 3]), num_classes=10)
        {'target': tensor(3), 'share': tensor(0.7500)}
    """
    return winner(count_votes(preds, num_classes, mask))


def detection_success_rate(detected: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
    """Compute the detection success rate (DSR), see `DetectionSuccessRate`.

    Args:
        detected: The class each run named, integer ``[R]``; negative where it named none.
        target: The attack's label in each run, integer ``[R]``.
        mask: Runs that count, bool ``[R]``.

    Returns:
        Scalar in [0, 1], NaN where no run counts.

    Example:
        >>> detection_success_rate(torch.tensor([0, 0, 4]), torch.tensor([0, 2, 4]))
        tensor(0.6667)
    """
    return ratio(*count_equal(detected, target, mask))


class TargetVotes(Metric):
    r"""The class most often predicted on images with a recovered trigger, and its share (BTI-DBF, Sec. 4.2).

    .. math:: \hat t = \arg\max_c \sum_i m_i\,[\hat y_i = c]

    As input to ``update`` the metric accepts

    - ``preds``: logits ``[B, C]`` or integer classes ``[B]``
    - ``mask``: rows m that count, bool ``[B]``, all if left out

    ``compute`` gives a dict of ``target`` (int64 scalar, the first of equals, -1 without votes) and ``share`` (float32
    scalar in [0, 1], NaN without votes).

    Args:
        num_classes: Number of classes.

    Example:
        >>> metric = TargetVotes(num_classes=10)
        >>> metric.update(torch.tensor([3, 3, 1, 3]))
        >>> metric.compute()
        {'target': tensor(3), 'share': tensor(0.7500)}
    """

    is_differentiable = False
    full_state_update = False
    votes: Tensor

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.add_state("votes", torch.zeros(num_classes, dtype=torch.long), dist_reduce_fx="sum")

    def update(self, preds: Tensor, mask: Tensor | None = None) -> None:
        """Add a batch of predictions."""
        self.votes += count_votes(preds, self.num_classes, mask)

    def compute(self) -> dict[str, Tensor]:
        """Return the winner and its share over all rows that counted."""
        return winner(self.votes)


class DetectionSuccessRate(Metric):
    r"""Detection success rate (DSR): the share of runs that name the attack's label (BTI-DBF, Sec. 4.2).

    .. math:: \mathrm{DSR} = \frac1R \sum_r [\hat t_r = t_r]

    over runs of different targets and repeats, with the class that `TargetVotes` finds in each.

    As input to ``update`` the metric accepts

    - ``detected``: the class each run named, integer ``[R]``; negative where it named none
    - ``target``: the attack's label in each run, integer ``[R]``
    - ``mask``: runs that count, bool ``[R]``, all if left out

    ``compute`` gives a float32 scalar in [0, 1], NaN where no run counted.

    Example:
        >>> metric = DetectionSuccessRate()
        >>> metric.update(torch.tensor([0, 0, 4]), torch.tensor([0, 2, 4]))
        >>> metric.compute()
        tensor(0.6667)
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    plot_lower_bound = 0.0
    plot_upper_bound = 1.0
    correct: Tensor
    total: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("correct", torch.tensor(0), dist_reduce_fx="sum")
        self.add_state("total", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, detected: Tensor, target: Tensor, mask: Tensor | None = None) -> None:
        """Add runs."""
        correct, total = count_equal(detected, target, mask)
        self.correct += correct
        self.total += total

    def compute(self) -> Tensor:
        """Return the share of successful runs."""
        return ratio(self.correct, self.total)
