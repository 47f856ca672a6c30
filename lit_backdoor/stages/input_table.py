"""The role of every stage that judges inputs: a table of them, their scores, and the detector as a bundle."""

from __future__ import annotations

import csv
from abc import abstractmethod
from pathlib import Path
from typing import ClassVar, Literal

import torch

from lit_backdoor.models import Frozen, InputDetector
from lit_backdoor.stages.base import Batch, Outcome, Stage
from lit_backdoor.stages.evaluation import Evaluator, InputEvaluator
from lit_backdoor.stages.rows import RowTable

__all__ = ["InputTable"]

_COLUMNS = ("view", "index", "before", "after", "flagged", "score")


class InputTable(Stage):
    """Judge inputs by a detector; trains nothing.

    A subclass makes the detector, `net`, in `build`. ``predict`` writes a table of inputs, ``test`` measures precision,
    recall, F1 and AUROC on all clean test images and the same images triggered; where rows carry the trigger
    themselves, on those without and those with it. Images of the ``root`` view only serve the detector.

    Args:
        table: CSV file to write; None puts ``inputs.csv`` under the Trainer's ``default_root_dir``. The columns are
            view, index (row of the source's part), before, after (classes), flagged (0 or 1) and score.
    """

    views: ClassVar[tuple[str, ...]] = ("clean",)
    verb: ClassVar[Literal["fit", "predict"]] = "predict"
    kind: ClassVar[str | None] = "detector"
    net: Frozen[InputDetector]

    def __init__(self, table: str | None = None) -> None:
        super().__init__()
        self.table = table
        self.rows = RowTable()
        self._views: list[str] = []

    @abstractmethod
    def build(self) -> None:
        """Make the detector, `net`."""
        raise NotImplementedError

    def result(self) -> InputDetector:
        """Give the detector."""
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
        if batch["view"] == "root":
            return
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
        """Export the detector, with the share of inputs that it flagged."""
        whole, scores = self.rows.compute()
        columns = dict(zip(_COLUMNS[1:-1], whole[:, 1:].unbind(1), strict=True))
        flagged = float(columns["flagged"].double().mean())
        return Outcome(self.result(), {**columns, "score": scores}, {"flagged_share": flagged, **self.numbers()})
