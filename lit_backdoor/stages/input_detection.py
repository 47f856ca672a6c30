"""Detection of triggered inputs by a purifier: what changes its class when purified carries a trigger."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any, ClassVar, Literal, cast

import torch
from torch import Tensor, nn
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from lit_backdoor.functional.decoupling import lost_confidence
from lit_backdoor.metrics import InputDetectionScores
from lit_backdoor.models import Frozen, Purified
from lit_backdoor.stages.base import Batch, Outcome, Stage
from lit_backdoor.stages.inputs import Takes

__all__ = ["InputDetection"]

_COLUMNS = ("view", "index", "before", "after", "flagged", "score")


class _Table(Metric):
    """One row per input, concatenated over processes: five whole numbers and a score."""

    full_state_update = False
    whole: list[Tensor]
    scores: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        self.add_state("whole", [], dist_reduce_fx="cat")
        self.add_state("scores", [], dist_reduce_fx="cat")

    def update(self, whole: Tensor, scores: Tensor) -> None:
        self.whole.append(whole)
        self.scores.append(scores)

    def compute(self) -> tuple[Tensor, Tensor]:
        """Give the rows ordered by view and index."""
        whole, scores = dim_zero_cat(self.whole).cpu(), dim_zero_cat(self.scores).cpu()
        order = whole[:, 1].argsort(stable=True)
        order = order[whole[order, 0].argsort(stable=True)]
        return whole[order], scores[order]


class InputDetection(Stage):
    """Flag inputs whose predicted class changes when they are purified; trains nothing.

    The score is how much of the first predicted class's probability is lost. ``predict`` writes a table of inputs,
    ``test`` measures precision, recall, F1 and AUROC on all clean test images and the same images triggered; where rows
    carry the trigger themselves, on those without and those with it.

    Args:
        purified: Path of a bundle that holds a `Purified` suspect, or such a suspect.
        table: CSV file to write; None puts ``inputs.csv`` under the Trainer's ``default_root_dir``. The columns are
            view, index (row of the source's part), before, after (classes), flagged (0 or 1) and score.

    Raises:
        ValueError: When run, if the suspect has no purifier.
    """

    views: ClassVar[tuple[str, ...]] = ("clean",)
    verb: ClassVar[Literal["fit", "predict"]] = "predict"
    kind: ClassVar[str] = "detector"
    takes: ClassVar[Takes] = {"purified": ("suspect",)}

    def __init__(self, purified: str | Purified, table: str | None = None) -> None:
        super().__init__()
        self.given(purified=purified)
        self.table = table
        self.rows = _Table()
        self._views: list[str] = []
        self._ready = True

    def build(self) -> None:
        """Open the purified suspect."""
        net = self.open("purified")
        if not isinstance(net, Purified):
            raise ValueError(
                f"Expected a suspect behind a purifier, got {type(net).__name__}. Make one, for example by "
                "lit_backdoor.defenses.btidbf.Purification."
            )
        self.net: Frozen[Purified] = Frozen(net)

    def metrics(self) -> dict[str, Metric]:
        """Measure precision, recall, F1, AUROC."""
        return {"detection": InputDetectionScores()}

    def detect(self, images: Tensor) -> dict[str, Tensor]:
        """Give the classes ``before`` and ``after`` purification, ``flagged`` (bool) and ``score``, ``[B]`` each."""
        net = self.net.module
        before, after = net.classifier(images).float(), net(images).float()
        scores, flags = lost_confidence(before, after)
        return {"before": before.argmax(1), "after": after.argmax(1), "flagged": flags, "score": scores}

    def evaluate(self, batch: Batch, metrics: Any) -> list[str]:
        """Add clean or triggered inputs."""
        found = self.detect(batch["image"])
        triggered = torch.full_like(found["flagged"], batch["view"] == "triggered")
        metrics["detection"].update(found["score"], found["flagged"], triggered, batch["valid"])
        return []

    def on_test_epoch_end(self) -> None:
        """Log the four scores."""
        metric = cast(InputDetectionScores, cast(nn.ModuleDict, self.eval_metrics["test"])["detection"])
        self.log_dict({f"test/{name}": value for name, value in metric.compute().items()})
        metric.reset()

    def on_predict_start(self) -> None:
        """Begin anew."""
        self.rows.reset()

    def predict_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Judge one batch; padding rows are left out."""
        if batch["view"] not in self._views:
            self._views.append(batch["view"])
        found, valid = self.detect(batch["image"]), batch["valid"]
        view = torch.full_like(batch["index"], self._views.index(batch["view"]))
        whole = [view, batch["index"], found["before"], found["after"], found["flagged"].long()]
        self.rows.update(torch.stack(whole, 1)[valid], found["score"][valid])

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
        """Hand on the purified suspect as a detector, with the share of inputs that it flagged."""
        whole, scores = self.rows.compute()
        columns = dict(zip(_COLUMNS[1:-1], whole[:, 1:].unbind(1), strict=True))
        flagged = float(columns["flagged"].double().mean())
        return Outcome(self.net.module, {**columns, "score": scores}, {"flagged_share": flagged})
