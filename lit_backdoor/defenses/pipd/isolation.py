"""PIPD's isolation of poisoned rows."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from lit_backdoor.errors import check_share
from lit_backdoor.functional.compromised import excess, natural_break
from lit_backdoor.models import Classifier, Frozen
from lit_backdoor.models.channel_peaks import logits_and_peaks
from lit_backdoor.models.channels import producers
from lit_backdoor.stages.base import Batch, Outcome
from lit_backdoor.stages.inputs import Takes
from lit_backdoor.stages.selection import SuspiciousSelection

__all__ = ["ProgressiveIsolation"]


class ProgressiveIsolation(SuspiciousSelection):
    """Isolate the questioned rows that excite the same channels as the rows that were learned first (PIPD).

    Two presets come from a net trained by local gradient ascent: the rows that it fits best are taken for poisoned, the
    rows that it fits worst for clean. In each round, the channels of the suspect that the former excite most above the
    latter (`excess`) are summed up over layers for every row; the upper of two natural groups (`natural_break`) is
    isolated, without the rows that are taken for clean; all other rows are taken for clean from then on.

    As in the public code, the rows that are first taken for poisoned stay the same in all rounds.

    Args:
        suspect: Path of a suspect bundle, or a classifier, trained on the questioned set.
        isolator: Path of the bundle of a net trained by local gradient ascent, or such a classifier.
        share: Share of the rows first taken for poisoned, in (0, 1). Release: .01.
        clean_share: Share of the rows first taken for clean, in (0, 1). Release: .2.
        channel_share: Share of a layer's channels that is summed up, in (0, 1). Release: .04.
        rounds: Number of rounds, at least 1. Release: 5.

    Raises:
        ValueError: If a number is out of range; when run, if no batch norm follows a convolution.
    """

    takes: ClassVar[Takes] = {**SuspiciousSelection.takes, "isolator": ("suspect",)}

    def __init__(
        self,
        suspect: str | Classifier,
        isolator: str | Classifier,
        share: float = 0.01,
        clean_share: float = 0.2,
        channel_share: float = 0.04,
        rounds: int = 5,
    ) -> None:
        super().__init__(suspect, share)
        self.given(isolator=isolator)
        self.clean_share = check_share("clean_share", clean_share)
        self.channel_share = check_share("channel_share", channel_share)
        if rounds < 1:
            raise ValueError(f"Expected rounds of at least 1, got {rounds}.")
        self.rounds = rounds
        self.columns: list[tuple[Tensor, ...]] = []

    def build(self) -> None:
        """Open both nets and find the suspect's channels."""
        super().build()
        self.isolator: Frozen[Classifier] = Frozen(self.open_classifier("isolator"))
        self.norms = [norm for _, norm in producers(self.net.module)]
        if not self.norms:
            raise ValueError(
                f"Expected batch norms that follow a convolution in {type(self.net.module.net).__name__}, found none. "
                "PIPD compares their channels; choose another selection, such as LowestLoss."
            )

    def score(self, batch: Batch) -> Tensor:
        """Compute the loss of the isolator."""
        return F.cross_entropy(self.isolator(batch["image"]).float(), batch["label"], reduction="none")

    def on_predict_start(self) -> None:
        """Begin anew."""
        super().on_predict_start()
        self.columns = []

    def predict_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Go over all rows, in the first step and in every process: isolation compares rows with each other."""
        if self.columns:
            return
        for part in self.passes("questioned"):
            peaks = logits_and_peaks(self.net.module, self.norms, part["image"])[1]
            self.columns.append((part["index"].cpu(), self.score(part).cpu(), *(each.cpu() for each in peaks)))

    def outcome(self) -> Outcome:
        """Isolate; the rows that excite the channels most come first."""
        rows, losses, *peaks = (torch.cat(column) for column in zip(*self.columns, strict=True))
        isolated, sums = self.isolate(losses, peaks)
        order = sums.argsort(descending=True, stable=True)
        return Outcome(tensors={"indices": rows[order[isolated[order]]], "rows": rows, "scores": -sums})

    def isolate(self, losses: Tensor, peaks: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Isolate by losses ``[N]`` and the peaks of each layer's channels, ``[N, C]`` each.

        Returns:
            Which rows are isolated, bool ``[N]``, at least one, and their sums of activations, float ``[N]``.
        """
        order = losses.argsort(stable=True)
        poisoned, clean = torch.zeros(2, len(losses), dtype=torch.bool)
        poisoned[order[: max(1, round(self.share * len(order)))]] = True
        clean[order[-max(1, round(self.clean_share * len(order))) :]] = True
        for _ in range(self.rounds):
            sums = torch.zeros(len(losses))
            for found in peaks:
                best = excess(found, poisoned, clean).argsort(descending=True)
                sums += found[:, best[: math.ceil(self.channel_share * len(best))]].sum(1)
            isolated = natural_break(sums) & ~clean
            clean = ~isolated
        return (isolated if isolated.any() else poisoned), sums
