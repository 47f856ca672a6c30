"""What a defense was worth, from ACC and ASR before and after it: DER and DEM."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import Metric

from lit_backdoor.metrics.classification import count_equal
from lit_backdoor.metrics.rows import check_flags, counting, ratio

__all__ = ["DefenseEffectivenessRating", "DefenseEfficacyMeasure", "dem", "der"]

Share = float | Tensor


def _shares(**given: Share) -> list[Tensor]:
    shares = []
    for name, value in given.items():
        share = torch.as_tensor(value).float()
        if ((share < 0) | (share > 1)).any():
            raise ValueError(f"Expected `{name}` to be a share in [0, 1], but got {value}. Divide percentages by 100.")
        shares.append(share)
    return shares


def der(before_asr: Share, after_asr: Share, before_acc: Share, after_acc: Share) -> Tensor:
    r"""Compute the defense effectiveness rating (DER).

    .. math:: \mathrm{DER} = \tfrac12\bigl(\max(0, \mathrm{ASR}_b - \mathrm{ASR}_a)
        - \max(0, \mathrm{ACC}_b - \mathrm{ACC}_a) + 1\bigr)

    Zhu et al., ICCV 2023 (FT-SAM); ATClean, Sec. 4. A defense that changes nothing gets 0.5.

    Args:
        before_asr: ASR of the suspect, in [0, 1].
        after_asr: ASR after the defense.
        before_acc: ACC of the suspect.
        after_acc: ACC after the defense.

    Returns:
        Scalar in [0, 1]; NaN if one of the shares is.

    Raises:
        ValueError: If a share is outside [0, 1].

    Example:
        >>> der(before_asr=1.0, after_asr=0.1, before_acc=0.9, after_acc=0.8)
        tensor(0.9000)
    """
    asr_b, asr_a, acc_b, acc_a = _shares(
        before_asr=before_asr, after_asr=after_asr, before_acc=before_acc, after_acc=after_acc
    )
    return ((asr_b - asr_a).clamp(min=0) - (acc_b - acc_a).clamp(min=0) + 1) / 2


def dem(before_asr: Share, after_asr: Share, before_acc: Share, after_acc: Share) -> Tensor:
    r"""Compute the defense efficacy measure (DEM, Gamma).

    .. math:: \mathrm{DEM} = \tfrac12\Bigl(1
        - \max\bigl(0, \tfrac{\mathrm{ACC}_b - \mathrm{ACC}_a}{\mathrm{ACC}_b}\bigr)
        + \max\bigl(0, \tfrac{\mathrm{ASR}_b - \mathrm{ASR}_a}{\mathrm{ASR}_b}\bigr)\Bigr)

    PGBD (ICCV 2025), Sec. 5. A perfect defense gets 1, one that changes nothing 0.5.

    Args:
        before_asr: ASR of the suspect, in [0, 1].
        after_asr: ASR after the defense.
        before_acc: ACC of the suspect.
        after_acc: ACC after the defense.

    Returns:
        Scalar in [0, 1]; NaN if one of the shares is, or if the suspect's ASR or ACC is zero.

    Raises:
        ValueError: If a share is outside [0, 1].

    Example:
        >>> dem(before_asr=1.0, after_asr=0.1, before_acc=0.9, after_acc=0.81)
        tensor(0.9000)
    """
    asr_b, asr_a, acc_b, acc_a = _shares(
        before_asr=before_asr, after_asr=after_asr, before_acc=before_acc, after_acc=after_acc
    )
    return (1 - ratio(acc_b - acc_a, acc_b).clamp(min=0) + ratio(asr_b - asr_a, asr_b).clamp(min=0)) / 2


class _BeforeAfter(Metric):
    """Counts of ACC and ASR of two models over one stream of clean and triggered rows."""

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    plot_lower_bound = 0.0
    plot_upper_bound = 1.0
    correct: Tensor
    total: Tensor

    def __init__(self) -> None:
        super().__init__()
        # rows: clean, triggered; columns: before, after
        self.add_state("correct", torch.zeros(2, 2, dtype=torch.long), dist_reduce_fx="sum")
        self.add_state("total", torch.zeros(2, dtype=torch.long), dist_reduce_fx="sum")

    def update(
        self, before: Tensor, after: Tensor, target: Tensor, triggered: Tensor, mask: Tensor | None = None
    ) -> None:
        """Add a batch of predictions of the suspect and of the defended model."""
        rows = counting(mask, target)
        check_flags("triggered", triggered, len(target))
        for part, inside in enumerate((rows & ~triggered, rows & triggered)):
            for column, preds in enumerate((before, after)):
                self.correct[part, column] += count_equal(preds, target, inside)[0]
            self.total[part] += inside.sum()

    def shares(self) -> dict[str, Tensor]:
        """Return ``before_asr``, ``after_asr``, ``before_acc`` and ``after_acc`` of this process's rows."""
        (before_acc, after_acc), (before_asr, after_asr) = ratio(self.correct, self.total[:, None].expand(2, 2))
        return {"before_asr": before_asr, "after_asr": after_asr, "before_acc": before_acc, "after_acc": after_acc}


class DefenseEffectivenessRating(_BeforeAfter):
    r"""Defense effectiveness rating (DER) from a stream of both models' predictions; formula and source in `der`.

    .. math:: \mathrm{DER} = \tfrac12(\max(0, \Delta\mathrm{ASR}) - \max(0, \Delta\mathrm{ACC}) + 1)

    As input to ``update`` the metric accepts

    - ``before``: the suspect's logits ``[B, C]`` or classes ``[B]``
    - ``after``: those of the defended model
    - ``target``: integer ``[B]``; the true label of clean rows, the attack's label of triggered ones
    - ``triggered``: which rows are triggered, bool ``[B]``
    - ``mask``: rows that count, bool ``[B]``, all if left out

    ``compute`` gives a float32 scalar in [0, 1], NaN where clean or triggered rows are missing.

    Example:
        >>> metric = DefenseEffectivenessRating()
        >>> triggered = torch.tensor([False, False, True, True])
        >>> before, after = torch.tensor([1, 2, 0, 0]), torch.tensor([1, 2, 0, 3])
        >>> metric.update(before, after, torch.tensor([1, 2, 0, 0]), triggered)
        >>> metric.compute()
        tensor(0.7500)
    """

    def compute(self) -> Tensor:
        """Return DER over all rows that counted."""
        return der(**self.shares())


class DefenseEfficacyMeasure(_BeforeAfter):
    r"""Defense efficacy measure (DEM) from a stream of both models' predictions; formula and source in `dem`.

    .. math:: \mathrm{DEM} = \tfrac12\Bigl(1 - \max\bigl(0, \tfrac{\Delta\mathrm{ACC}}{\mathrm{ACC}_b}\bigr)
        + \max\bigl(0, \tfrac{\Delta\mathrm{ASR}}{\mathrm{ASR}_b}\bigr)\Bigr)

    As input to ``update`` the metric accepts

    - ``before``: the suspect's logits ``[B, C]`` or classes ``[B]``
    - ``after``: those of the defended model
    - ``target``: integer ``[B]``; the true label of clean rows, the attack's label of triggered ones
    - ``triggered``: which rows are triggered, bool ``[B]``
    - ``mask``: rows that count, bool ``[B]``, all if left out

    ``compute`` gives a float32 scalar in [0, 1], NaN where a denominator is missing.

    Example:
        >>> metric = DefenseEfficacyMeasure()
        >>> triggered = torch.tensor([False, False, True, True])
        >>> before, after = torch.tensor([1, 2, 0, 0]), torch.tensor([1, 2, 0, 3])
        >>> metric.update(before, after, torch.tensor([1, 2, 0, 0]), triggered)
        >>> metric.compute()
        tensor(0.7500)
    """

    def compute(self) -> Tensor:
        """Return DEM over all rows that counted."""
        return dem(**self.shares())
