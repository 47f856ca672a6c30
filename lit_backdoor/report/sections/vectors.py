"""Whether triggered images move along PGBD's vectors (Amula et al., ICCV 2025, Fig. 2): cos(V^P, V^gt) by layer."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from lit_backdoor.functional.prototypes import (
    activation_shifts,
    class_prototypes,
    prototype_vectors,
    vector_alignment,
)
from lit_backdoor.models.base import Classifier
from lit_backdoor.report.dots import Strip, strips
from lit_backdoor.report.rows import spread
from lit_backdoor.report.run import Run
from lit_backdoor.report.template import Section, render

__all__ = ["vectors"]

_LAYERS, _CLASSES, _ROWS = 3, 16, 32  # last convolutions; classes; images of each class and kind
_STYLES = {"before": "asr", "after": "ra"}


@torch.no_grad()
def vectors(run: Run) -> Section | None:
    """Show the cosine of each class's vector to the target's prototype with where the trigger really moves it.

    The attack has to be known for that; what is not known is left out.
    """
    if run.data.attack is None or not run.data.counts["root"]:
        return None
    leads = run.data.attack.relabel(torch.arange(run.data.num_classes), run.data.num_classes)
    classes = _classes(run, leads)
    layers = {role: _last_layers(net) for role, net in run.nets.items()}
    names = next(iter(layers.values()), [])
    if not classes or not names:
        return None
    found = {role: _alignment(run, run.nets[role], names, classes, leads) for role in layers if layers[role] == names}
    rows = [
        (name, strip_row)
        for number, name in enumerate(names)
        if (strip_row := [_strip(run, role, of[number], classes) for role, of in found.items() if _known(of[number])])
    ]
    if not rows:
        return None
    alt = "; ".join(f"{name}: " + ", ".join(f"{s.title} {s.mean:.2f}" for s in group) for name, group in rows)
    alt = f"Mean cosine of vectors and true shifts by layer, {alt}."
    html = render(
        "vectors.html", charts={kind: strips(rows, width, alt) for kind, width in (("wide", 760), ("narrow", 340))},
        classes=len(classes), both=len(found) == 2, targeted=len(set(leads[classes].tolist())) == 1,
    )  # fmt: skip
    return Section("vectors", "Does the trigger move images toward the target class?", html)


def _classes(run: Run, leads: Tensor) -> list[int]:
    """Choose classes that the attack leads elsewhere and of which there are root and triggered images."""
    root, triggered = run.data.get_view("root"), run.data.get_view("triggered")
    counted = torch.ones(len(triggered), dtype=torch.bool) if triggered.eligible is None else triggered.eligible
    own, there = triggered.clean_label[counted], root.label
    moved = (leads[own] != own) & torch.isin(own, there) & torch.isin(leads[own], there)
    return spread(own[moved], _CLASSES)


def _last_layers(net: object) -> list[str]:
    """Name the last convolutions (a transformer's blocks) in forward order; none where they cannot be read."""
    if not isinstance(net, Classifier):
        return []
    try:
        names = net.last_layers(_LAYERS, "conv")[::-1]
        net.taps(net.example(), names)
    except ValueError:
        return []
    return names


def _alignment(run: Run, net: torch.nn.Module, names: list[str], classes: list[int], leads: Tensor) -> Tensor:
    """Compute the cosines ``[layers, classes]``, class by class, so that few activations are held at a time."""
    needed = sorted({*classes, *leads[classes].tolist()})
    prototypes: list[list[Tensor]] = [[] for _ in names]
    shifts: list[list[Tensor]] = [[] for _ in names]
    for label in needed:
        root = _activations(run, net, names, "root", label)
        moved = _activations(run, net, names, "triggered", label) if label in classes else None
        still = _activations(run, net, names, "clean", label) if label in classes else None
        for i, rows in enumerate(root):
            prototypes[i].append(_prototype(rows, run.results["seed"]))
            if moved is None or still is None:
                shifts[i].append(torch.full_like(prototypes[i][-1], torch.nan))
            else:
                zeros = [rows.new_zeros(len(part[i]), dtype=torch.long) for part in (moved, still)]
                shifts[i].append(activation_shifts(moved[i], zeros[0], still[i], zeros[1], 1)[0])
    place = {label: i for i, label in enumerate(needed)}
    to = torch.tensor([[place.get(int(leads[label]), place[label]) for label in needed]])
    cosines = [
        vector_alignment(prototype_vectors(torch.stack(own), to)[0], torch.stack(gone))
        for own, gone in zip(prototypes, shifts, strict=True)
    ]
    return torch.stack(cosines)[:, [place[label] for label in classes]]


def _activations(run: Run, net: torch.nn.Module, names: list[str], view: str, label: int) -> list[Tensor]:
    """Give the activations of a class's first rows in a view, one tensor per layer."""
    rows = run.data.get_view(view)
    mine = rows.clean_label == label if rows.eligible is None else (rows.clean_label == label) & rows.eligible
    batch = run.batch(view, mine.nonzero().flatten()[:_ROWS])
    assert isinstance(net, Classifier)
    taps = net.taps(batch["image"], names)
    return [taps[name] for name in names]


def _prototype(rows: Tensor, seed: int) -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # few root images are no news in a report
        return class_prototypes(rows, torch.zeros(len(rows), dtype=torch.long), 1, seed=seed)[0]


def _known(cosines: Tensor) -> bool:
    return bool(cosines.isfinite().any())


def _strip(run: Run, role: str, cosines: Tensor, classes: list[int]) -> Strip:
    there = [(value, run.class_name(label)) for value, label in zip(cosines.tolist(), classes, strict=True)]
    there = [(value, name) for value, name in there if value == value]
    return Strip(role, _STYLES[role], there, float(cosines.nanmean()))
