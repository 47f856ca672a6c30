"""Selection of suspicious rows from the questioned dataset."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from lit_backdoor.errors import check_share
from lit_backdoor.models import Classifier, Frozen
from lit_backdoor.stages.base import Batch, Outcome, Stage
from lit_backdoor.stages.rows import RowTable
from lit_backdoor.triggers import Role

__all__ = ["LowestLoss", "OracleSelection", "SuspiciousSelection"]


class SuspiciousSelection(Stage):
    """Score every row of the questioned dataset and keep the share with the lowest scores.

    A subclass says in `score` what is low for poisoned rows. Exports ``indices`` (int64, rows of the source's train
    part, lowest score first), and ``scores`` (float32) with ``rows`` (int64) for all rows, in order.

    Args:
        suspect: Path of a suspect bundle, or a classifier.
        share: Share of the questioned rows to keep, in (0, 1). ATClean: .01.
    """

    views: ClassVar[tuple[str, ...]] = ("questioned",)
    verb: ClassVar[Literal["fit", "predict"]] = "predict"
    kind: ClassVar[str | None] = "selection"

    def __init__(self, suspect: str | Classifier, share: float = 0.01) -> None:
        super().__init__()
        self.given(suspect=suspect)
        self.share = check_share("the share of rows to select", share)
        self.collected = RowTable()

    def build(self) -> None:
        """Open the suspect."""
        self.net: Frozen[Classifier] = Frozen(self.open_classifier())

    def result(self) -> Classifier:
        """Give the suspect, which a validation measures; what is exported is the selection."""
        return self.net.module

    @abstractmethod
    def score(self, batch: Batch) -> Tensor:
        """Score rows, float ``[B]``; low is suspicious."""
        raise NotImplementedError

    def predict_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Score one batch; padding rows are left out."""
        valid = batch["valid"]
        self.collected.update(self.score(batch)[valid], batch["index"][valid])

    def on_predict_start(self) -> None:
        """Begin anew."""
        super().on_predict_start()
        self.collected.reset()

    def outcome(self) -> Outcome:
        """Keep the lowest scores; ties go to the lower row."""
        whole, scores = self.collected.compute()
        rows = whole[:, 0]
        keep = max(1, round(self.share * len(rows)))
        indices = rows[scores.argsort(stable=True)[:keep]]
        return Outcome(tensors={"indices": indices, "rows": rows, "scores": scores})


class LowestLoss(SuspiciousSelection):
    """Keep the rows that the suspect fits best: poisoned rows are learned first (ATClean, step 2; ABL).

    The loss is taken from the trained suspect in eval mode, without augmentation. For ABL's own procedure, give it the
    suspect that `LocalGradientAscentTraining` trained.
    """

    def score(self, batch: Batch) -> Tensor:
        """Cross-entropy of the label as given."""
        return F.cross_entropy(self.net(batch["image"]).float(), batch["label"], reduction="none")


class OracleSelection(SuspiciousSelection):
    """Select poisoned rows with a chosen precision. It knows the truth: for ablations, never a defense.

    Args:
        suspect: Path of a suspect bundle, or a classifier; only evaluated.
        share: Share of the questioned rows to keep, in (0, 1).
        precision: Share of poisoned rows among the selected, in [0, 1].

    Raises:
        ValueError: When run, if there are not that many poisoned or clean rows.
    """

    selection: ClassVar[str] = "oracle"

    def __init__(self, suspect: str | Classifier, share: float = 0.01, precision: float = 1.0) -> None:
        super().__init__(suspect, share)
        self.precision = precision and check_share("the oracle's precision", precision, closed=True)

    def score(self, batch: Batch) -> Tensor:
        """Draw a score from (seed, row); poisoned rows come below the clean ones."""
        generator = torch.Generator().manual_seed(self.seed)
        limit = int(batch["index"].max()) + 1
        draws = torch.rand(limit, generator=generator)[batch["index"].cpu()].to(batch["index"].device)
        clean: Tensor = batch["role"] != Role.POISON
        return draws + clean

    def outcome(self) -> Outcome:
        """Keep as many of each as the precision asks for."""
        everything = super().outcome()
        tensors: Any = everything.tensors
        keep = len(tensors["indices"])
        poisoned = tensors["scores"] < 1
        wanted = round(self.precision * keep)
        if int(poisoned.sum()) < wanted or int((~poisoned).sum()) < keep - wanted:
            raise ValueError(
                f"Expected a selection of {keep} rows with {wanted} poisoned ones to be possible, but the set has "
                f"{int(poisoned.sum())} poisoned and {int((~poisoned).sum())} other rows. Lower the share."
            )
        order = tensors["scores"].argsort(stable=True)
        chosen = torch.cat((order[:wanted], order[int(poisoned.sum()) :][: keep - wanted]))
        return Outcome(tensors={**tensors, "indices": tensors["rows"][chosen]})
