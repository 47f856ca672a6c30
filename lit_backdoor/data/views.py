"""The named parts of the data, each a dataset that is asked for whole batches."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from lit_backdoor.data.samplers import Draw
from lit_backdoor.data.selection import read_selection
from lit_backdoor.data.sources.base import Rows, Source, numbers
from lit_backdoor.data.split import Split
from lit_backdoor.triggers.base import Attack, Role, Trigger
from lit_backdoor.triggers.paired import PairedTrigger

__all__ = ["VIEWS", "View", "count_rows", "pair_views", "plan_views", "selected_view"]

VIEWS = ("train", "questioned", "root", "suspicious", "clean", "triggered", "attacker")


@dataclass
class View(Dataset[dict[str, Any]]):
    """Rows of a source's part under one name, with what the attacker did to them; ``[N]`` each.

    Attributes:
        name: One of `VIEWS`.
        rows: The source's part.
        index: Positions in it, int64.
        label: The labels that the view gives, int64: the attack's where rows are poisoned or triggered.
        clean_label: The truth, int64.
        role: What the attacker did, int8.
        eligible: Which rows count in ASR and RA; in the triggered view alone.
        unlabeled: Whether nobody labeled the rows, so that each stage's suspect does; in the root view alone.
        partner: Positions of the rows' partners in the part, int64; None where no trigger asks for them.
        sends_images: Whether batches bring their images; else they are looked up on the device.
    """

    name: str
    rows: Rows
    index: Tensor
    label: Tensor
    clean_label: Tensor
    role: Tensor
    eligible: Tensor | None = None
    unlabeled: bool = False
    partner: Tensor | None = None
    sends_images: bool = True

    def __post_init__(self) -> None:
        self._stamped = self.name not in ("triggered", "attacker") and bool((self.role != Role.CLEAN).any())

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, draw: Draw) -> dict[str, Any]:
        """Gather one batch, images still uint8; the rows to stamp are named here, before the transfer."""
        index = self.index.index_select(0, draw.rows)
        role = self.role.index_select(0, draw.rows)
        batch: dict[str, Any] = {
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
        if self.partner is not None and (self._stamped or self.eligible is not None):
            stamped = draw.rows
            if self._stamped:
                stamped = stamped[torch.cat((batch["poison_rows"], batch["cover_rows"]))]
            batch["partner_index"] = self.partner.index_select(0, stamped)
        if self.eligible is not None:
            batch["eligible"] = self.eligible.index_select(0, draw.rows) & draw.valid
        if self.sends_images:
            batch["image"] = self.rows.images(index)
            if "partner_index" in batch:
                batch["partner"] = self.rows.images(batch["partner_index"])
        return batch


def plan_views(
    source: Source, split: Split, attack: Attack | None, seed: int, root_source: Source | None = None
) -> dict[str, View]:
    """Split the rows, plan the attack and make every view but the suspicious one.

    Where the root set comes from a source with other classes, its labels are -1: the suspect is to give them.

    Raises:
        ValueError: If split, attack or root source do not fit the data; says what is possible.
    """
    train, test, num_classes = source.train(), source.test(), len(source.class_names)
    parts = split.assign(train, num_classes, seed)
    role = torch.zeros(len(parts.questioned), dtype=torch.int8)
    views = {}
    if attack is None:
        views["clean"] = _clean("clean", test)
    else:
        attack.check(num_classes)
        columns = {name: column[parts.questioned] for name, column in train.columns.items()}
        role = attack.roles(train.labels[parts.questioned], columns, seed=seed)
        views["clean"], views["triggered"] = _test_views(test, attack, num_classes)
    for name in ("train", "questioned"):
        views[name] = _poisoned(name, train, parts.questioned, role, attack, num_classes)
    views["attacker"] = _clean("attacker", train, parts.questioned)
    views["attacker"].role.copy_(role)
    if root_source is None:
        views["root"] = _clean("root", train, parts.root)
    else:
        views["root"] = _root_of(root_source, source.class_names)
    if attack is not None and not attack.trigger.stamps:
        _check_root(views["root"], attack, own=root_source is not None)
    return views


def count_rows(views: Mapping[str, View]) -> dict[str, int]:
    """Count rows by name: ``train``, of them ``poison`` and ``cover``, ``root``, ``clean``, eligible ``triggered``."""
    role, triggered = views["train"].role, views.get("triggered")
    counts = {name: len(views[name]) for name in ("train", "root", "clean")}
    counts |= {"poison": int((role == Role.POISON).sum()), "cover": int((role == Role.COVER).sum())}
    eligible = None if triggered is None else triggered.eligible
    return counts | {"triggered": 0 if eligible is None else int(eligible.sum())}


def selected_view(questioned: View, path: str | None, attack: Attack | None, num_classes: int) -> View:
    """Make the view of the rows that a selection bundle names, poisoned as they are.

    Raises:
        ValueError: If there is no bundle, or it names rows outside the questioned set.
    """
    if path is None:
        raise ValueError("Expected data.suspicious, the path of a selection bundle: the view 'suspicious' needs it.")
    index = read_selection(path)
    place = torch.searchsorted(questioned.index, index).clamp_(max=len(questioned) - 1)
    if strangers := int((questioned.index[place] != index).sum()):
        raise ValueError(
            f"Expected data.suspicious to select rows of the questioned set, but {strangers} of {len(index)} in "
            f"'{path}' are outside it. Was it made with another split or seed?"
        )
    view = _poisoned("suspicious", questioned.rows, index, questioned.role[place], attack, num_classes)
    view.partner = None if questioned.partner is None else questioned.partner[place]
    return view


def pair_views(views: dict[str, View], trigger: Trigger | None, seed: int) -> None:
    """Give each row that may be stamped a partner among its view's rows, if the trigger asks for them.

    The suspicious view is forgotten: it is made anew, with the partners that its rows have in the questioned set.
    """
    views.pop("suspicious", None)
    for view in (views[name] for name in ("train", "questioned", "triggered") if name in views):
        view.partner = None
        if isinstance(trigger, PairedTrigger):
            planted = view.role == Role.POISON if view.eligible is None else view.eligible
            view.partner = view.index[trigger.partners(view.clean_label, planted, seed)]


def _clean(name: str, rows: Rows, index: Tensor | None = None) -> View:
    """Make a view of untouched rows; all rows where no index is given."""
    index = torch.arange(len(rows)) if index is None else index
    labels = rows.labels[index]
    return View(name, rows, index, labels, labels.clone(), torch.zeros(len(index), dtype=torch.int8))


def _poisoned(name: str, rows: Rows, index: Tensor, role: Tensor, attack: Attack | None, num_classes: int) -> View:
    """Make a view of the questioned set: planted rows carry the attack's label, cover samples their own."""
    view = _clean(name, rows, index)
    if attack is None:
        return view
    planted = torch.where(role == Role.POISON, attack.relabel(view.clean_label, num_classes), view.clean_label)
    return View(name, rows, index, planted, view.clean_label, role)


def _test_views(rows: Rows, attack: Attack, num_classes: int) -> tuple[View, View]:
    """Make the clean and the triggered view: all test rows in both where the trigger is stamped.

    Where rows carry the trigger, those that do not are clean, and those that do are triggered as they are.

    Raises:
        ValueError: If all test rows carry the trigger, or none does.
    """
    carriers = attack.carriers(rows.columns, len(rows))
    triggered = carriers.nonzero().flatten()
    clean = torch.arange(len(rows)) if attack.trigger.stamps else (~carriers).nonzero().flatten()
    if not (len(clean) and len(triggered)):
        raise ValueError(
            f"Expected test rows with and without the trigger ({type(attack.trigger).__name__}), got {len(triggered)} "
            f"with and {len(clean)} without it."
        )
    labels = rows.labels[triggered]
    stamped = View(
        "triggered",
        rows,
        triggered,
        attack.relabel(labels, num_classes),
        labels,
        torch.full((len(triggered),), Role.POISON, dtype=torch.int8),
        attack.eligible(rows.labels, rows.columns)[triggered],
    )
    return _clean("clean", rows, clean), stamped


def _root_of(source: Source, names: tuple[str, ...]) -> View:
    """Make the root view of a source of its own, without labels where its classes are others than ``names``.

    Numbers are no names that could differ: where both sides have only them, labels within range stay.
    """
    view, theirs = _clean("root", source.train()), source.class_names
    labeled = int((view.label >= 0).sum())
    numbered = theirs == numbers(len(theirs)) and names == numbers(len(names))
    if labeled and theirs != names and not (numbered and bool((view.label < len(names)).all())):
        warnings.warn(
            f"data.root_source has other classes than data.source: its {labeled} labels are discarded, and the suspect "
            "of each stage labels its rows. To keep them give both the same class_names.",
            stacklevel=2,
        )
        view.label.fill_(-1)
        view.clean_label.fill_(-1)
    view.unlabeled = bool((view.label < 0).any())
    return view


def _check_root(root: View, attack: Attack, own: bool) -> None:
    """Check that no row carries the trigger; the defender's own root set may have no column that says so."""
    columns = root.rows.columns
    if own and getattr(attack.trigger, "column", None) not in columns:
        return
    carriers = attack.carriers(columns, len(root.rows))[root.index]
    if carriers.any():
        other = "data.split of class BalancedSplit with root_without, the trigger's column"
        raise ValueError(
            f"Expected a root set without the attack's trigger, but {int(carriers.sum())} of its {len(carriers)} rows "
            f"carry it. Keep them out: {'a data.root_source without them' if own else other}."
        )
