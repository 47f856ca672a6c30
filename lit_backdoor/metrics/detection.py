"""How well rows were told apart: selections of training rows, flags and scores of test inputs."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.functional.classification import binary_auroc
from torchmetrics.utilities import dim_zero_cat

from lit_backdoor.metrics.rows import check_flags, counting, ratio

__all__ = ["InputDetectionScores", "SelectionScores", "input_detection_scores", "selection_scores"]


def count_hits(flagged: Tensor, truth: Tensor, mask: Tensor | None = None) -> Tensor:
    """Count true positives, false positives and false negatives, int64 ``[3]``."""
    rows = counting(mask, flagged)
    check_flags("flagged", flagged, len(rows))
    check_flags("truth", truth, len(rows))
    return torch.stack([(rows & hit).sum() for hit in (flagged & truth, flagged & ~truth, ~flagged & truth)])


def scores_of_hits(hits: Tensor) -> dict[str, Tensor]:
    """Compute precision, recall and F1 from the counts of `count_hits`."""
    tp, fp, fn = hits.unbind()
    return {"precision": ratio(tp, tp + fp), "recall": ratio(tp, tp + fn), "f1": ratio(2 * tp, 2 * tp + fp + fn)}


def auroc(scores: Tensor, truth: Tensor) -> Tensor:
    """Compute the area under the ROC curve; NaN where one side is missing or a score is NaN."""
    if not truth.any() or truth.all() or scores.isnan().any():
        return torch.full((), torch.nan, device=scores.device)
    # torchmetrics squashes scores outside [0, 1] with a sigmoid, which ties large ones: give it ranks
    ranks = torch.unique(scores, return_inverse=True)[1]
    return binary_auroc(ranks / len(scores), truth.long(), thresholds=None).float()


def selection_scores(selected: Tensor, poisoned: Tensor, mask: Tensor | None = None) -> dict[str, Tensor]:
    """Compute precision, recall and F1 of selected training rows, see `SelectionScores`.

    Args:
        selected: Which rows were selected, bool ``[N]``.
        poisoned: Which rows are poisoned, bool ``[N]``.
        mask: Rows that count, bool ``[N]``.

    Returns:
        Scalars in [0, 1] or NaN under ``precision``, ``recall`` and ``f1``.

    Example:
        >>> selected = torch.tensor([True, True, False, False])
        >>> selection_scores(selected, torch.tensor([True, False, True, True]))
        {'precision': tensor(0.5000), 'recall': tensor(0.3333), 'f1': tensor(0.4000)}
    """
    return scores_of_hits(count_hits(selected, poisoned, mask))


def input_detection_scores(
    scores: Tensor, flags: Tensor, triggered: Tensor, mask: Tensor | None = None
) -> dict[str, Tensor]:
    """Compute precision, recall, F1 and AUROC of an input detector, see `InputDetectionScores`.

    Args:
        scores: Floating ``[B]``, larger means more suspicious; any range.
        flags: Which inputs the detector flagged, bool ``[B]``.
        triggered: Which inputs are triggered, bool ``[B]``.
        mask: Rows that count, bool ``[B]``.

    Returns:
        Scalars in [0, 1] or NaN under ``precision``, ``recall``, ``f1`` and ``auroc``.

    Example:
        >>> scores = torch.tensor([0.1, 0.7, 0.6, 0.9])
        >>> triggered = torch.tensor([False, False, True, True])
        >>> found = input_detection_scores(scores, scores > 0.5, triggered)
        >>> {name: round(float(value), 2) for name, value in found.items()}
        {'precision': 0.67, 'recall': 1.0, 'f1': 0.8, 'auroc': 0.75}
    """
    rows = counting(mask, scores)
    found = scores_of_hits(count_hits(flags, triggered, rows))
    return found | {"auroc": auroc(scores[rows], triggered[rows])}


class SelectionScores(Metric):
    r"""Precision, recall and F1 of the training rows that a selection calls suspicious.

    .. math:: P = \frac{|S \cap T|}{|S|}, \quad R = \frac{|S \cap T|}{|T|}, \quad F_1 = \frac{2|S \cap T|}{|S| + |T|}

    with the selected rows S and the poisoned rows T (ATClean, Fig. 10). Whether cover samples belong to T is the
    caller's choice; they carry the trigger with their true label.

    As input to ``update`` the metric accepts

    - ``selected``: which rows were selected, bool ``[B]``
    - ``poisoned``: which rows are poisoned, bool ``[B]``
    - ``mask``: rows that count, bool ``[B]``, all if left out

    ``compute`` gives a dict of float32 scalars ``precision``, ``recall``, ``f1`` in [0, 1], each NaN without a
    denominator.

    Example:
        >>> metric = SelectionScores()
        >>> metric.update(torch.tensor([True, True, False, False]), torch.tensor([True, False, True, True]))
        >>> metric.compute()
        {'precision': tensor(0.5000), 'recall': tensor(0.3333), 'f1': tensor(0.4000)}
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    plot_lower_bound = 0.0
    plot_upper_bound = 1.0
    hits: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("hits", torch.zeros(3, dtype=torch.long), dist_reduce_fx="sum")

    def update(self, selected: Tensor, poisoned: Tensor, mask: Tensor | None = None) -> None:
        """Add a batch of rows."""
        self.hits += count_hits(selected, poisoned, mask)

    def compute(self) -> dict[str, Tensor]:
        """Return precision, recall and F1 over all rows that counted."""
        return scores_of_hits(self.hits)


class InputDetectionScores(Metric):
    r"""Precision, recall, F1 and AUROC of a detector of triggered inputs.

    .. math:: P = \frac{TP}{TP + FP}, \quad R = \frac{TP}{TP + FN}, \quad F_1 = \frac{2TP}{2TP + FP + FN}, \quad
        \mathrm{AUROC} = \Pr(s' > s) + \tfrac12 \Pr(s' = s)

    with scores s of clean and s' of triggered inputs. To be fed with clean test images and the same images triggered,
    one to one: precision depends on their proportion. Scores are kept until ``compute``, on all processes together.

    As input to ``update`` the metric accepts

    - ``scores``: floating ``[B]``, larger means more suspicious; any range
    - ``flags``: which inputs the detector flagged, bool ``[B]``
    - ``triggered``: which inputs are triggered, bool ``[B]``
    - ``mask``: rows that count, bool ``[B]``, all if left out

    ``compute`` gives a dict of float32 scalars ``precision``, ``recall``, ``f1``, ``auroc`` in [0, 1], each NaN
    without a denominator; AUROC also where a score is NaN.

    Example:
        >>> metric = InputDetectionScores()
        >>> scores = torch.tensor([0.1, 0.7, 0.6, 0.9])
        >>> metric.update(scores, scores > 0.5, torch.tensor([False, False, True, True]))
        >>> {name: round(float(value), 2) for name, value in metric.compute().items()}
        {'precision': 0.67, 'recall': 1.0, 'f1': 0.8, 'auroc': 0.75}
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    plot_lower_bound = 0.0
    plot_upper_bound = 1.0
    hits: Tensor
    scores: list[Tensor]
    triggered: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        self.add_state("hits", torch.zeros(3, dtype=torch.long), dist_reduce_fx="sum")
        self.add_state("scores", [], dist_reduce_fx="cat")
        self.add_state("triggered", [], dist_reduce_fx="cat")

    def update(self, scores: Tensor, flags: Tensor, triggered: Tensor, mask: Tensor | None = None) -> None:
        """Add a batch of inputs."""
        rows = counting(mask, scores)
        self.hits += count_hits(flags, triggered, rows)
        self.scores.append(scores[rows].float())
        self.triggered.append(triggered[rows].float())  # a process without rows sends an empty float tensor

    def compute(self) -> dict[str, Tensor]:
        """Return the four scores over all inputs that counted."""
        return scores_of_hits(self.hits) | {
            "auroc": auroc(self._joined(self.scores), self._joined(self.triggered).bool())
        }

    def _joined(self, state: Tensor | list[Tensor]) -> Tensor:
        return dim_zero_cat(state) if len(state) else torch.empty(0, device=self.device)
