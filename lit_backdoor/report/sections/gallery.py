"""The gallery: test images, clean, triggered and generated or recovered, with what the classifiers say about each."""

# ruff: noqa: RUF001  (typographic signs are meant)

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from lit_backdoor.report.pictures import LARGEST, amplified, data_uri, gain_for
from lit_backdoor.report.rows import counting, pick
from lit_backdoor.report.run import Run
from lit_backdoor.report.template import Section, render

__all__ = ["gallery"]

_SHOWN = 8
_GENERATED = ("Generated", "made from the clean image")
_RECOVERED = ("Recovered", "stamped by the inverted trigger")


@dataclass
class _Kind:
    """One row of pictures.

    Attributes:
        name: ``clean``, ``triggered``, ``generated``, ``trigger`` (what it changes) or ``generator``.
        title: What stands at its head.
        note: A line below that.
        images: Float ``[N, C, H, W]`` in [0, 1].
        says: For each classifier the predicted labels ``[N]``; empty for differences.
    """

    name: str
    title: str
    note: str
    images: Tensor
    says: dict[str, list[int]] = field(default_factory=dict)


@torch.no_grad()
def gallery(run: Run) -> Section | None:
    """Show pictures of test rows that count in ASR; without an attack, of clean ones.

    Where rows carry the trigger themselves, a clean picture of the same class stands above each.
    """
    attack, clean_view = run.data.attack, run.data.get_view("clean")
    view = run.data.get_view("triggered") if attack else clean_view
    rows = pick(view.clean_label, counting(view) & torch.isin(view.clean_label, clean_view.clean_label), _SHOWN)
    if not len(rows):
        return None
    batch = run.batch(view.name, rows)
    stamped: Tensor | None = batch["image"] if attack else None
    paired = attack is None or attack.trigger.stamps
    if paired:
        clean: Tensor = batch["original"] if "original" in batch else batch["image"]
    else:
        clean = run.batch("clean", _alike(clean_view.clean_label, batch["clean_label"]))["image"]
    made = run.made(clean)
    kinds = _kinds(clean, stamped, made, _RECOVERED if run.recovered else _GENERATED, paired)
    for kind in kinds:
        if kind.name in ("clean", "triggered", "generated"):
            kind.says = {role: _predict(net, kind.images) for role, net in run.nets.items()}
    truth, goal = batch["clean_label"].tolist(), batch["label"].tolist() if attack else None
    side = max(clean.shape[-2:])
    html = render(
        "gallery.html", kinds=kinds, uris={kind.name: [data_uri(image) for image in kind.images] for kind in kinds},
        truth=truth, run=run, roles=list(run.nets), shrunk=LARGEST if side > LARGEST else None,
        width=_width(side), verdicts=_verdicts(kinds, truth, goal), goals=_goals(run, goal),
    )  # fmt: skip
    return Section("gallery", _title(stamped is not None, made is not None, run.recovered), html)


def _alike(labels: Tensor, wanted: Tensor) -> Tensor:
    """Give for each wanted label a row that has it, the next one where it comes again."""
    found, asked = [], list[int]()
    for label in wanted.tolist():
        rows = (labels == label).nonzero().flatten()
        found.append(rows[asked.count(label) % len(rows)])
        asked.append(label)
    return torch.stack(found)


def _title(stamped: bool, made: bool, recovered: bool) -> str:
    if not stamped and not made:
        return "What the classifiers see"
    found = "what the inversion recovered" if recovered else "what the generator found"
    alone = "What the inversion recovered" if recovered else "What the generator makes"
    return alone if not stamped else "What the trigger does" + (f", and {found}" if made else "")


def _kinds(
    clean: Tensor, stamped: Tensor | None, made: Tensor | None, words: tuple[str, str], paired: bool
) -> list[_Kind]:
    kinds = [_Kind("clean", "Clean", "as in the test set", clean)]
    changes = []
    for name, (title, note), source, images in (
        ("triggered", ("Triggered", "stamped by the attacker" if paired else "another picture"), "trigger", stamped),
        ("generated", words, "generator", made),
    ):
        if images is not None:
            kinds.append(_Kind(name, title, note, images))
        if images is not None and (paired or name != "triggered"):
            gain = gain_for(images - clean)
            note = f"{title.lower()} − clean, ×{gain}"
            changes.append(_Kind(source, "Difference", note, amplified(images - clean, gain)))
    return kinds + changes


def _predict(net: nn.Module, images: Tensor) -> list[int]:
    labels: list[int] = net(images).argmax(1).tolist()
    return labels


def _verdicts(kinds: list[_Kind], truth: list[int], goal: list[int] | None) -> dict[tuple[str, str, int], str]:
    """Say of each prediction whether it is ``true``, the ``attack``'s, or ``other``."""
    found = {}
    for kind in kinds:
        for role, labels in kind.says.items():
            for i, label in enumerate(labels):
                hit = goal is not None and kind.name != "clean" and label == goal[i]
                found[kind.name, role, i] = "true" if label == truth[i] else "attack" if hit else "other"
    return found


def _goals(run: Run, goal: list[int] | None) -> str:
    names = sorted({run.class_name(label) for label in goal or ()})
    return f"“{names[0]}”" if len(names) == 1 else "its own for each class"


def _width(side: int) -> int | None:
    """Give a width at which each pixel of a small picture is a whole number of the screen's."""
    times = LARGEST // side
    return times * side if times >= 2 else None
