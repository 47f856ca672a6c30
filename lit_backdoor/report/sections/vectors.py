"""Whether triggered images move along PGBD's vectors (Amula et al., ICCV 2025, Fig. 2): cos(V^P, V^gt) by layer."""

from __future__ import annotations

import math
import warnings

import torch
from torch import Tensor, nn

from lit_backdoor.functional.prototypes import (
    activation_shifts,
    class_prototypes,
    prototype_vectors,
    vector_alignment,
)
from lit_backdoor.models.base import Classifier
from lit_backdoor.page.dots import Strip, strips
from lit_backdoor.report.rows import counting, spread
from lit_backdoor.report.run import Run
from lit_backdoor.report.template import Section, render

__all__ = ["vectors"]

_LAYERS, _CLASSES, _ROWS = 3, 10, 32  # last convolutions; classes; images of each class and kind
_AXIS = "cosine of direction and true shift"
_STYLES = {"before": "asr", "after": "ra"}


@torch.no_grad()
def vectors(run: Run) -> Section | None:
    """Show the cosine of each class's vector to the target's prototype with where the trigger really moves it.

    It takes the attack, so it serves diagnosis alone; what is not known is left out.
    """
    if run.data.attack is None or not run.data.counts["root"]:
        return None
    leads = run.data.attack.relabel(torch.arange(run.data.num_classes), run.data.num_classes)
    classes = _classes(run, leads)
    nets = {role: net for role, net in run.nets.items() if isinstance(net, Classifier)}
    layers = {role: _last_layers(net) for role, net in nets.items()}
    names = next(iter(layers.values()), [])
    if not classes or not names:
        return None
    found = {role: _alignment(run, nets[role], names, classes, leads) for role in nets if layers[role] == names}
    rows = [
        (name, group)
        for number, name in enumerate(names)
        if (group := [_strip(run, role, of[number], classes) for role, of in found.items() if _known(of[number])])
    ]
    if not rows:
        return None
    net = next(iter(nets.values())).net
    kind = "convolutions" if all(isinstance(net.get_submodule(name), nn.Conv2d) for name in names) else "blocks"
    alt = "; ".join(f"{name}: " + ", ".join(f"{s.title} {s.mean:.2f}" for s in group) for name, group in rows)
    alt = f"Mean cosine of vectors and true shifts by layer, {alt}."
    charts = {size: strips(rows, width, _AXIS, alt) for size, width in (("wide", 760), ("narrow", 340))}
    html = render(
        "vectors.html", charts=charts,
        classes=len(classes), kind=kind, targeted=len(set(leads[classes].tolist())) == 1,
    )  # fmt: skip
    return Section("vectors", "Does the trigger move images toward the target?", html)


def _classes(run: Run, leads: Tensor) -> list[int]:
    """Choose classes that the attack leads elsewhere and of which there are root and triggered images."""
    root, triggered = run.data.get_view("root"), run.data.get_view("triggered")
    own, there = triggered.clean_label[counting(triggered)], root.label
    moved = (leads[own] != own) & torch.isin(own, there) & torch.isin(leads[own], there)
    return spread(own[moved], _CLASSES)


def _last_layers(net: Classifier) -> list[str]:
    """Name the last convolutions (a transformer's blocks) in forward order; none where they cannot be read."""
    try:
        names = net.last_layers(_LAYERS, "conv")[::-1]
        net.taps(net.example(), names)
    except ValueError:
        return []
    return names


def _alignment(run: Run, net: Classifier, names: list[str], classes: list[int], leads: Tensor) -> Tensor:
    """Compute the cosines ``[layers, classes]``, class by class, so that few activations are held at a time."""
    prototypes = {
        label: [_prototype(rows, run.data.seed) for rows in _activations(run, net, names, "root", label)]
        for label in {*classes, *leads[classes].tolist()}
    }
    cosines = torch.empty(len(names), len(classes))
    for column, label in enumerate(classes):
        moved, still = (_activations(run, net, names, view, label) for view in ("triggered", "clean"))
        for row, (after, before) in enumerate(zip(moved, still, strict=True)):
            ends = torch.stack([prototypes[label][row], prototypes[int(leads[label])][row]])
            vector = prototype_vectors(ends, torch.tensor([[1, 1]]))[0, :1]
            shift = activation_shifts(after, _one_class(after), before, _one_class(before), 1)
            cosines[row, column] = vector_alignment(vector, shift)[0]
    return cosines


def _activations(run: Run, net: Classifier, names: list[str], view: str, label: int) -> list[Tensor]:
    """Give the activations of a class's first rows in a view, one tensor per layer."""
    rows = run.data.get_view(view)
    mine = (rows.clean_label == label) & counting(rows)
    batch = run.batch(view, mine.nonzero().flatten()[:_ROWS])
    taps = net.taps(batch["image"], names)
    return [taps[name] for name in names]


def _prototype(rows: Tensor, seed: int) -> Tensor:
    if not rows.isfinite().all():  # a diverged net; K-means would fail
        return torch.full((rows[0].numel(),), torch.nan)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # few root images are no news in a report
        return class_prototypes(rows, _one_class(rows), 1, seed=seed)[0]


def _one_class(rows: Tensor) -> Tensor:
    return torch.zeros(len(rows), dtype=torch.long)


def _known(cosines: Tensor) -> bool:
    return bool(cosines.isfinite().any())


def _strip(run: Run, role: str, cosines: Tensor, classes: list[int]) -> Strip:
    there = [(value, run.class_name(label)) for value, label in zip(cosines.tolist(), classes, strict=True)]
    there = [(value, name) for value, name in there if math.isfinite(value)]
    return Strip(role, _STYLES[role], there, float(cosines.nanmean()))
