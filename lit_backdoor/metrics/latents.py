"""How close reconstructed trigger-activated changes (TAC) come to the true ones."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import Metric

from lit_backdoor.metrics.rows import counting, ratio

__all__ = ["TacFidelity", "tac_fidelity"]

SHARES = (1, 5, 10)  # percent of the units


def sum_changes(triggered: Tensor, clean: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Sum the rows' changes of latents (float32, ``[d]``) and count the rows (int64)."""
    if triggered.shape != clean.shape or triggered.ndim != 2:
        raise ValueError(
            f"Expected latents [B, d] of one shape, but got {list(triggered.shape)} and {list(clean.shape)}."
        )
    rows = counting(mask, clean)
    changes = triggered.float() - clean.float()
    return torch.where(rows[:, None], changes, 0).sum(0), rows.sum()


def tac_fidelity(reconstructed: Tensor, true: Tensor) -> dict[str, Tensor]:
    """Compare reconstructed changes with the true one, see `TacFidelity`.

    Args:
        reconstructed: One perturbation of the latents per class, ``[C, d]``.
        true: The true change, ``[d]``; where it holds NaN or is all zero, every result is NaN, as it is for a
            perturbation of zeros.

    Returns:
        ``cosine`` and ``rank_correlation`` in [-1, 1], ``precision_1``, ``precision_5`` and ``precision_10`` in [0, 1],
        float32 ``[C]`` each.

    Raises:
        ValueError: If the shapes do not fit.

    Example:
        >>> tac_fidelity(torch.tensor([[0.0, 3.0, 4.0]]), torch.tensor([0.0, 5.0, 0.0]))["cosine"]
        tensor([0.6000])
    """
    if reconstructed.ndim != 2 or reconstructed.shape[1:] != true.shape:
        raise ValueError(
            f"Expected perturbations [C, d] and a true change [d], but got {list(reconstructed.shape)} and "
            f"{list(true.shape)}."
        )
    reconstructed, true = reconstructed.float(), true.float()
    ranks = _ranks(reconstructed), _ranks(true[None])
    centered = [rank - rank.mean(1, keepdim=True) for rank in ranks]
    found = {
        "cosine": F.cosine_similarity(reconstructed, true[None], dim=1),
        "rank_correlation": F.cosine_similarity(centered[0], centered[1], dim=1),
    }
    for percent in SHARES:
        count = max(1, round(percent * len(true) / 100))
        largest = reconstructed.abs().topk(count, dim=1).indices
        hits = torch.isin(largest, true.abs().topk(count).indices)
        found[f"precision_{percent}"] = hits.float().mean(1)
    unknown = true.isnan().any() | (true == 0).all() | (reconstructed == 0).all(1)
    return {name: value.masked_fill(unknown, torch.nan) for name, value in found.items()}


def _ranks(values: Tensor) -> Tensor:
    """Rank each row's values; equal ones get the mean of their ranks."""
    ordered = values.sort(dim=1).values
    first = torch.searchsorted(ordered, values.contiguous())
    after = torch.searchsorted(ordered, values.contiguous(), right=True)
    return (first + after).float() / 2


class TacFidelity(Metric):
    r"""Fidelity of reconstructed trigger-activated changes (TAC): do they point where the true trigger moves latents?

    .. math:: t = \frac{1}{\sum_i m_i} \sum_i m_i\,\bigl(\phi(b(x_i)) - \phi(x_i)\bigr)

    is the true change, with latents phi and the attack's trigger b. For each class's perturbation s_k are given

    - ``cosine``: of s_k and t
    - ``rank_correlation``: Spearman's, of their units
    - ``precision_1``, ``precision_5``, ``precision_10``: of the 1, 5 and 10 % of the units (at least one) where
      :math:`|s_k|` is largest, the share that are also among those where :math:`|t|` is

    As input to ``update`` the metric accepts

    - ``triggered``: latents of triggered images, ``[B, d]`` of any floating dtype
    - ``clean``: latents of the same images without the trigger, ``[B, d]``
    - ``mask``: rows m that count, bool ``[B]``, all if left out

    ``compute`` gives a dict of float32 ``[C]``, NaN where no row counted, as for an attack that is not known.

    Args:
        reconstructed: The perturbations s of all classes, ``[C, d]``.

    Example:
        >>> metric = TacFidelity(torch.tensor([[0.0, 3.0, 4.0], [1.0, 0.0, 0.0]]))
        >>> metric.update(torch.tensor([[1.0, 6.0, 1.0]]), torch.tensor([[1.0, 1.0, 1.0]]))
        >>> metric.compute()["cosine"]
        tensor([0.6000, 0.0000])
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    plot_lower_bound = -1.0
    plot_upper_bound = 1.0
    total: Tensor
    count: Tensor
    reconstructed: Tensor

    def __init__(self, reconstructed: Tensor) -> None:
        super().__init__()
        self.register_buffer("reconstructed", reconstructed, persistent=False)
        self.add_state("total", torch.zeros(reconstructed.shape[1]), dist_reduce_fx="sum")
        self.add_state("count", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, triggered: Tensor, clean: Tensor, mask: Tensor | None = None) -> None:
        """Add a batch of latents."""
        total, count = sum_changes(triggered, clean, mask)
        self.total += total
        self.count += count

    def compute(self) -> dict[str, Tensor]:
        """Compare with the mean change over all rows that counted."""
        return tac_fidelity(self.reconstructed, ratio(self.total, self.count))
