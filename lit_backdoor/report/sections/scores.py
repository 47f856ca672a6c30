"""How the selection scored the questioned rows: a histogram of poisoned and clean ones."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from lit_backdoor.page.svg import Bars, histogram
from lit_backdoor.page.words import count, percent
from lit_backdoor.report.run import Run
from lit_backdoor.report.template import Section, render
from lit_backdoor.triggers import Role

__all__ = ["scores"]

_BINS = 56
_FLOOR = 1e-8  # losses below it are as good as zero in single precision
_GROUPS = ((Role.CLEAN, "clean", "Clean"), (Role.POISON, "poison", "Poisoned"), (Role.COVER, "cover", "Cover samples"))


@dataclass(frozen=True)
class _Group:
    """Rows of one role: how many, how many of them selected, and how their scores spread."""

    style: str
    title: str
    rows: int
    chosen: int
    bars: Bars


def scores(run: Run) -> Section | None:
    """Draw the scores of the last selection by the rows' roles, and where it cuts."""
    bundle = run.last("selection")
    tensors = bundle.tensors() if bundle else {}
    if bundle is None or not {"scores", "rows", "indices"} <= set(tensors) or not len(tensors["scores"]):
        return None
    values, rows, indices = tensors["scores"].double(), tensors["rows"], tensors["indices"]
    role, chosen = _roles(run, rows), torch.isin(rows, indices)
    logarithmic = _spreads(values)
    placed = values.clamp(min=_FLOOR).log10() if logarithmic else values
    edges = _edges(placed)
    groups = [
        _Group(style, title, int(mine.sum()), int((mine & chosen).sum()), Bars(style, _shares(placed[mine], edges)))
        for kind, style, title in _GROUPS
        if (mine := role == kind).any()
    ]
    name = "loss" if "Loss" in str(bundle.info.get("stage", "")) else "score"
    threshold = _threshold(values, placed, chosen, len(indices))
    title = _axis(name) + (" (logarithmic)" if logarithmic else "")
    charts = {
        kind: histogram(
            [group.bars for group in groups],
            edges,
            width,
            _ticks(edges, logarithmic, most),
            title,
            _alt(name, groups),
            threshold,
        )
        for kind, width, most in (("wide", 940, 12), ("narrow", 350, 5))
    }
    html = render(
        "scores.html",
        charts=charts,
        groups=groups,
        name=name,
        stage=bundle.path.name,
        total=len(values),
        kept=len(indices),
        cut=threshold is not None,
        known=run.data.attack is not None,
        caught=percent(_precision(role, chosen)),
    )
    return Section("selection", f"{name.capitalize()} of poisoned and clean samples", html)


def _axis(name: str) -> str:
    return "loss of the label as given" if name == "loss" else "score, low is suspicious"


def _alt(name: str, groups: list[_Group]) -> str:
    said = (f"{count(group.rows)} {group.title.lower()}, {count(group.chosen)} of them selected" for group in groups)
    return f"Histogram of the {name} of the questioned images: {'; '.join(said)}."


def _spreads(values: Tensor) -> bool:
    """Say whether scores reach over so many powers of ten that a logarithmic axis shows them better."""
    low = float(values.clamp(min=_FLOOR).quantile(0.05))
    return bool((values >= 0).all()) and float(values.max()) > 100 * low


def _roles(run: Run, rows: Tensor) -> Tensor:
    """Give each row's role; rows that are not in the questioned set count as clean."""
    view = run.data.get_view("questioned")
    place = torch.searchsorted(view.index, rows).clamp_(max=len(view) - 1)
    return torch.where(view.index[place] == rows, view.role[place], int(Role.CLEAN))


def _precision(role: Tensor, chosen: Tensor) -> float | None:
    return float((role[chosen] == Role.POISON).double().mean()) if bool(chosen.any()) else None


def _edges(placed: Tensor) -> list[float]:
    low, high = float(placed.min()), float(placed.max())
    room = (high - low) * 0.01 or 0.5
    edges: list[float] = torch.linspace(low - room, high + room, _BINS + 1, dtype=torch.float64).tolist()
    return edges


def _shares(placed: Tensor, edges: list[float]) -> list[float]:
    bins = torch.bucketize(placed, torch.tensor(edges[1:-1], dtype=torch.float64))
    shares: list[float] = (torch.bincount(bins, minlength=_BINS).double() / len(placed)).tolist()
    return shares


def _threshold(values: Tensor, placed: Tensor, chosen: Tensor, kept: int) -> tuple[float, str] | None:
    """Give the place of the highest selected score; None where the selection is not simply the lowest scores."""
    if not chosen.any() or chosen.all() or values[chosen].max() > values[~chosen].min():
        return None
    return float(placed[chosen].max()), f"the {count(kept)} lowest are selected"


def _ticks(edges: list[float], logarithmic: bool, most: int) -> list[tuple[float, str]]:
    low, high = edges[0], edges[-1]
    if logarithmic:
        powers = range(math.ceil(low), math.floor(high) + 1)
        every = max(1, math.ceil(len(powers) / most))
        return [(float(power), _power(power)) for power in powers if power % every == 0]
    step = (high - low) / (most - 1)
    return [(low + i * step, f"{low + i * step:.3g}") for i in range(most)]


def _power(power: int) -> str:
    if -2 <= power <= 3:
        return f"{10.0**power:g}"
    return "10" + str(power).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
