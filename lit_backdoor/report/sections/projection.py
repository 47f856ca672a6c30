"""Logits of clean, triggered and generated images, before and after the defense, brought to the plane."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from markupsafe import Markup
from torch import Tensor, nn

from lit_backdoor.functional.projection import plane
from lit_backdoor.page.dots import SHAPES, Cloud, scatter
from lit_backdoor.page.svg import Point
from lit_backdoor.report.rows import counting, pick, spread
from lit_backdoor.report.run import Run
from lit_backdoor.report.template import Section, render

__all__ = ["projection"]

_CLASSES, _ROWS = 10, 10  # classes shown, and images of each


@dataclass(frozen=True)
class _Kind:
    """Images of one kind: how they are drawn, and their true labels."""

    style: str
    shape: str
    title: str
    images: Tensor
    labels: Tensor


@torch.no_grad()
def projection(run: Run) -> Section | None:
    """Draw the logits of test images of every kind, before and after the defense, on one plane."""
    kinds = _kinds(run)
    if len(kinds) < 2 or not run.nets:
        return None
    parts = {role: _logits(net, kinds) for role, net in run.nets.items()}
    if len({part.shape for part in parts.values()}) > 1:
        return None  # nets of different classes share no plane
    logits = torch.cat(list(parts.values()))
    if not logits.isfinite().all() or logits.shape[1] < 2:
        return None
    places = plane(logits, run.projection)
    target = _target(run)
    plots = [
        {"role": role, "stage": (stage or {}).get("name", ""), "plot": _plot(run, kinds, part, places, target, role)}
        for (role, stage), part in zip(_roles(run), places.chunk(len(parts)), strict=True)
    ]
    shown = [(kind.title, SHAPES[kind.shape], len(kind.images)) for kind in kinds]
    classes = _classes(kinds)
    html = render(
        "projection.html", plots=plots, kinds=shown, method=run.projection, ring=SHAPES["ring"],
        target=None if target is None else run.class_name(target), classes=[run.class_name(label) for label in classes],
        triggered=run.data.attack is not None,
    )  # fmt: skip
    *first, last = (kind.title.lower() for kind in kinds)
    return Section("logits", f"Logits of {', '.join(first)} and {last} images", html)


def _roles(run: Run) -> list[tuple[str, dict[str, Any] | None]]:
    """Give the stage of each net."""
    return [(role, run.before if role == "before" else run.after) for role in run.nets]


def _kinds(run: Run) -> list[_Kind]:
    """Take test rows of a few classes, the target among them."""
    clean = run.data.get_view("clean")
    target = _target(run)
    classes = spread(clean.clean_label, _CLASSES)
    if target is not None and target not in classes:
        classes = [target, *classes[1:]]
    allowed = torch.isin(clean.clean_label, torch.tensor(classes))
    rows = pick(clean.clean_label, allowed, _CLASSES * _ROWS)
    batch = run.batch("clean", rows)
    kinds = [_Kind("clean", "disc", "Clean", batch["image"], batch["clean_label"])]
    source, labels = batch["image"], batch["clean_label"]
    if run.data.attack is not None:
        view = run.data.get_view("triggered")
        allowed = counting(view) & torch.isin(view.clean_label, torch.tensor(classes))
        rows = pick(view.clean_label, allowed, _CLASSES * _ROWS)
        if not len(rows):
            return kinds
        batch = run.batch("triggered", rows)
        source, labels = batch.get("original", batch["image"]), batch["clean_label"]
        kinds.append(_Kind("poison", "up", "Triggered", batch["image"], labels))
    made = run.made(source)
    if made is not None:
        kinds.append(_Kind("made", "square", "Recovered" if run.recovered else "Generated", made, labels))
    return kinds


def _target(run: Run) -> int | None:
    """Name the one class that triggered images are sent to, where there is one."""
    attack = run.data.attack
    return None if attack is None else attack.single_target


def _logits(net: nn.Module, kinds: list[_Kind]) -> Tensor:
    """Give the logits of all kinds, less each image's mean, which no decision depends on."""
    logits = torch.cat([net(kind.images) for kind in kinds]).double()
    return logits - logits.mean(1, keepdim=True)


def _plot(run: Run, kinds: list[_Kind], own: Tensor, places: Tensor, target: int | None, role: str) -> Markup:
    """Draw one net's points, to the scale of all places."""
    parts = torch.split_with_sizes(own, [len(kind.images) for kind in kinds])
    clouds = [
        Cloud(f"{kind.style} class-{number % _CLASSES}", kind.shape, _points(part[kind.labels == label]))
        for kind, part in zip(kinds, parts, strict=True)
        for number, label in enumerate(_classes(kinds))
    ]
    goal = parts[0][kinds[0].labels == target] if target is not None else parts[0][:0]
    label = None
    if target is not None and len(goal):
        clouds.append(Cloud("target", "ring", _points(goal)))
        [top] = _points(goal[goal[:, 1].argmax()][None])
        label = top, run.class_name(target)
    said = ", ".join(f"{len(kind.images)} {kind.title.lower()}" for kind in kinds)
    alt = f"Logits of {said} images on a plane, {role} the defense."
    [low], [high] = _points(places.amin(0)[None]), _points(places.amax(0)[None])
    return scatter(clouds, low, high, alt, label)


def _classes(kinds: list[_Kind]) -> list[int]:
    """Give the true classes of the images; the place of a class is its color."""
    return sorted({label for kind in kinds for label in kind.labels.tolist()})


def _points(places: Tensor) -> list[Point]:
    return [(x, y) for x, y in places.tolist()]
