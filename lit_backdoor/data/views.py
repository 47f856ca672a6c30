"""The named parts of the data, each a dataset that is asked for whole batches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from lit_backdoor.data.samplers import Draw
from lit_backdoor.data.sources.base import Rows
from lit_backdoor.triggers.base import Attack, Role

__all__ = ["VIEWS", "View", "clean_view", "poisoned_view", "triggered_view"]

VIEWS = ("train", "questioned", "root", "suspicious", "clean", "triggered")


@dataclass
class View(Dataset[dict[str, Any]]):
    """Rows of a source's part under one name, with what the attacker did to them; ``[N]`` each.

    Attributes:
        name: One of `VIEWS`.
        rows: The source's part.
        index: Positions in it, int64.
        label: What the view says, int64.
        clean_label: The truth, int64.
        role: What the attacker did, int8.
        eligible: Which rows count in ASR and RA; in the triggered view alone.
    """

    name: str
    rows: Rows
    index: Tensor
    label: Tensor
    clean_label: Tensor
    role: Tensor
    eligible: Tensor | None = None

    def __post_init__(self) -> None:
        self._stamped = self.name != "triggered" and bool((self.role != Role.CLEAN).any())

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, draw: Draw) -> dict[str, Any]:
        """Gather one batch, images still uint8; the rows to stamp are named here, before the transfer."""
        index = self.index.index_select(0, draw.rows)
        role = self.role.index_select(0, draw.rows)
        batch = {
            "image": self.rows.images(index),
            "label": self.label.index_select(0, draw.rows),
            "clean_label": self.clean_label.index_select(0, draw.rows),
            "index": index,
            "role": role,
            "valid": draw.valid,
            "seed": draw.seed,
            "view": self.name,
        }
        if self._stamped:
            batch["poison_rows"] = (role == Role.POISON).nonzero().flatten()
            batch["cover_rows"] = (role == Role.COVER).nonzero().flatten()
        if self.eligible is not None:
            batch["eligible"] = self.eligible.index_select(0, draw.rows) & draw.valid
        return batch


def clean_view(name: str, rows: Rows, index: Tensor | None = None) -> View:
    """Make a view of untouched rows; all rows where no index is given."""
    index = torch.arange(len(rows)) if index is None else index
    labels = rows.labels[index]
    return View(name, rows, index, labels, labels.clone(), torch.zeros(len(index), dtype=torch.int8))


def poisoned_view(name: str, rows: Rows, index: Tensor, role: Tensor, attack: Attack | None, num_classes: int) -> View:
    """Make a view of the questioned set: planted rows carry the attack's label, cover samples their own."""
    view = clean_view(name, rows, index)
    if attack is None:
        return view
    planted = torch.where(role == Role.POISON, attack.relabel(view.clean_label, num_classes), view.clean_label)
    return View(name, rows, index, planted, view.clean_label, role)


def triggered_view(rows: Rows, attack: Attack, num_classes: int) -> View:
    """Make the view of all test rows, each to be stamped."""
    labels, columns = rows.labels, rows.columns
    return View(
        "triggered",
        rows,
        torch.arange(len(rows)),
        attack.relabel(labels, num_classes),
        labels,
        torch.full((len(rows),), Role.POISON, dtype=torch.int8),
        attack.eligible(labels, columns),
    )
