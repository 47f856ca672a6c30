"""NONE's rounds of a reset of compromised channels and of training on the rows that are left."""

from __future__ import annotations

import math
from typing import Any, ClassVar, Literal

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor

from lit_backdoor.errors import check_share
from lit_backdoor.functional.compromised import excess, natural_break
from lit_backdoor.models import Classifier
from lit_backdoor.models.channel_peaks import logits_and_peaks
from lit_backdoor.models.channels import producers
from lit_backdoor.stages.base import Batch
from lit_backdoor.stages.optim import Schedule, adam
from lit_backdoor.stages.repair import FineTune

__all__ = ["NeuronReset"]


class NeuronReset(FineTune):
    """Reset the channels that a backdoor compromised, and train on questioned rows that do not excite them (NONE).

    A channel is compromised for a class where some row that the suspect is sure belongs to the class excites it far
    above all that rows of other classes do (`excess`). At the start of a round the most compromised channels of each
    layer are set to zero, with their batch norm. Rows are judged by the sum, over layers, of their activation of the
    most compromised channel; of two natural groups (`natural_break`) the upper one is no longer trained on.

    Args:
        suspect: Path of a suspect bundle, or a classifier (a copy of it is tuned), trained on the questioned set.
        share: Share of a layer's channels that is reset, in (0, 1). Release: .05.
        low: Probability of a class below which a row is not of it, in (0, 1). Release: .1.
        high: Probability of a class above which a row is of it, in (0, 1). Release: .9.
        round_epochs: Epochs from one reset to the next, at least 1. Release: 20, one round.
        optimizer: Makes the optimizer; default Adam 1e-4.
        schedule: What the learning rate does over the run.
        batch_norm: ``train`` uses and updates batch statistics, ``eval`` keeps the suspect's running ones (release).

    Raises:
        ValueError: If a number is out of range; when run, if no batch norm follows a convolution.
    """

    views: ClassVar[tuple[str, ...]] = ("train",)
    removed: Tensor

    def __init__(
        self,
        suspect: str | Classifier,
        share: float = 0.05,
        low: float = 0.1,
        high: float = 0.9,
        round_epochs: int = 20,
        optimizer: OptimizerCallable = adam,
        schedule: Schedule = "constant",
        batch_norm: Literal["train", "eval"] = "eval",
    ) -> None:
        super().__init__(suspect, optimizer, schedule, batch_norm)
        self.part = check_share("share", share)
        self.low, self.high = check_share("low", low), check_share("high", high)
        if round_epochs < 1:
            raise ValueError(f"Expected round_epochs of at least 1, got {round_epochs}.")
        self.round_epochs = round_epochs

    def build(self) -> None:
        """Open the suspect and find its channels; which rows are removed is part of a checkpoint."""
        super().build()
        self.pairs = producers(self.classifier)
        if not self.pairs:
            raise ValueError(
                f"Expected batch norms that follow a convolution in {type(self.classifier.net).__name__}, found none. "
                "NONE resets their channels; choose another defense, such as abl."
            )
        rows = int(self.data.get_view("questioned").index.max()) + 1
        self.register_buffer("removed", torch.zeros(rows, dtype=torch.bool))

    def begin_epoch(self) -> None:
        """Begin a round where one is due."""
        super().begin_epoch()
        if not self.mid_epoch and self.current_epoch % self.round_epochs == 0:
            self.begin_round()

    @torch.no_grad()
    def begin_round(self) -> None:
        """Look at all questioned rows, reset channels and remove rows."""
        index, probabilities, peaks = self.look()
        sums = torch.zeros_like(peaks[0][:, 0])
        for (conv, norm), found in zip(self.pairs, peaks, strict=True):
            per_class = [excess(found, sure > self.high, sure < self.low) for sure in probabilities.unbind(1)]
            order = torch.stack(per_class).amax(0).argsort(descending=True)
            channels = order[: math.ceil(self.part * len(order))]
            for weight in (conv.weight, norm.weight, norm.bias):
                weight[channels] = 0
            sums += found[:, order[0]]
        self.removed.zero_()
        self.removed[index] = natural_break(sums)

    def look(self) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Give each questioned row's position in the source, its probabilities and the peaks of its channels."""
        rows = []
        for batch in self.passes("questioned", self.classifier):
            logits, peaks = logits_and_peaks(self.classifier, [norm for _, norm in self.pairs], batch["image"])
            rows.append((batch["index"], logits.softmax(1), *peaks))
        index, probabilities, *found = (torch.cat(column) for column in zip(*rows, strict=True))
        return index, probabilities, found

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Compute the cross-entropy of the rows that are left; nothing where there are none."""
        kept = ~self.removed[batch["index"]]
        return super().losses({"image": batch["image"][kept], "label": batch["label"][kept]}) if kept.any() else {}

    def numbers(self) -> dict[str, Any]:
        """Give the number of rows that were removed."""
        return {"removed_rows": int(self.removed.sum())}
