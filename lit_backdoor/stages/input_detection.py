"""Detection of triggered inputs by a purifier: what changes its class when purified carries a trigger."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import ClassVar, Literal

import torch

from lit_backdoor.models import Frozen, Purified
from lit_backdoor.stages.base import Batch, Outcome, Stage
from lit_backdoor.stages.evaluation import Evaluator, InputEvaluator
from lit_backdoor.stages.inputs import Takes
from lit_backdoor.stages.rows import RowTable

__all__ = ["InputDetection"]

_COLUMNS = ("view", "index", "before", "after", "flagged", "score")


class InputDetection(Stage):
    """Flag inputs whose predicted class changes when they are purified; trains nothing.

    The score is how much of the first predicted class's probability is lost. ``predict`` writes a table of inputs,
    ``test`` measures precision, recall, F1 and AUROC on all clean test images and the same images triggered; where rows
    carry the trigger themselves, on those without and those with it.

    Args:
        purified: Path of a bundle that holds a `Purified` suspect, or of a detector made of one, or such a suspect.
        table: CSV file to write; None puts ``inputs.csv`` under the Trainer's ``default_root_dir``. The columns are
            view, index (row of the source's part), before, after (classes), flagged (0 or 1) and score.

    Raises:
        ValueError: When run, if the suspect has no purifier.
    """

    views: ClassVar[tuple[str, ...]] = ("clean",)
    verb: ClassVar[Literal["fit", "predict"]] = "predict"
    kind: ClassVar[str | None] = "detector"
    takes: ClassVar[Takes] = {"purified": ("suspect", "detector")}

    def __init__(self, purified: str | Purified, table: str | None = None) -> None:
        super().__init__()
        self.given(purified=purified)
        self.table = table
        self.rows = RowTable()
        self._views: list[str] = []

    def build(self) -> None:
        """Open the purified suspect."""
        net = self.open("purified")
        if not isinstance(net, Purified):
            raise ValueError(
                f"Expected a suspect behind a purifier, got {type(net).__name__}. Make one, for example by "
                "lit_backdoor.defenses.btidbf.BTIDBFPurification."
            )
        self.net: Frozen[Purified] = Frozen(net)

    def result(self) -> Purified:
        """Give the purified suspect."""
        return self.net.module

    def evaluator(self) -> Evaluator:
        """Measure precision, recall, F1, AUROC."""
        return InputEvaluator(self.attached_data, self.net.module.judge)

    def on_predict_start(self) -> None:
        """Begin anew."""
        super().on_predict_start()
        self.rows.reset()

    def predict_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Judge one batch; padding rows are left out."""
        if batch["view"] not in self._views:
            self._views.append(batch["view"])
        found, valid = self.net.module.judge(batch["image"]), batch["valid"]
        view = torch.full_like(batch["index"], self._views.index(batch["view"]))
        columns = (view, batch["index"], found["before"], found["after"], found["flagged"].long())
        self.rows.update(found["score"][valid], *(column[valid] for column in columns))

    def on_predict_end(self) -> None:
        """Write the table."""
        whole, scores = self.rows.compute()
        if self.trainer.is_global_zero:
            file = Path(self.table or Path(self.trainer.default_root_dir) / "inputs.csv")
            file.parent.mkdir(parents=True, exist_ok=True)
            with file.open("w", newline="") as text:
                writer = csv.writer(text)
                writer.writerow(_COLUMNS)
                for row, score in zip(whole.tolist(), scores.tolist(), strict=True):
                    writer.writerow([self._views[row[0]], *row[1:], f"{score:.6f}"])

    def outcome(self) -> Outcome:
        """Export the purified suspect as a detector, with the share of inputs that it flagged."""
        whole, scores = self.rows.compute()
        columns = dict(zip(_COLUMNS[1:-1], whole[:, 1:].unbind(1), strict=True))
        flagged = float(columns["flagged"].double().mean())
        return Outcome(self.result(), {**columns, "score": scores}, {"flagged_share": flagged})
