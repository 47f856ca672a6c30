"""A plot of one number per class: dots on a line, those of equal places above each other."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from lit_backdoor.page.svg import nice_ticks, tag
from lit_backdoor.page.words import signed

__all__ = ["Dot", "swarm"]

_RADIUS, _STEP, _LEVELS = 4.5, 10.0, 14
_LEFT, _RIGHT, _HEAD, _FOOT = 12, 12, 24, 36
_SPREAD = 20.0  # factor between the ends from which on the axis is logarithmic


@dataclass(frozen=True)
class Dot:
    """A dot.

    Attributes:
        value: Its place.
        name: What it stands for.
        marked: Whether it stands out, with its name beside it.
    """

    value: float
    name: str
    marked: bool = False


def swarm(dots: Sequence[Dot], width: int, axis: str, alt: str) -> Markup:
    """Draw dots over an axis, logarithmic where values differ by a factor of twenty or more.

    Args:
        dots: At least one; all values finite.
        width: Width of the drawing; the page shows it at about this size.
        axis: Title of the axis.
        alt: The chart in words.
    """
    low, high = min(dot.value for dot in dots), max(dot.value for dot in dots)
    logarithmic = low > 0 and high >= _SPREAD * low
    ticks = _powers(low, high) if logarithmic else nice_ticks(min(low, 0.0), high, 4)
    start, end = (_scaled(value, logarithmic) for value in (min(low, ticks[0]), max(high, ticks[-1])))

    def place(value: float) -> float:
        share = (_scaled(value, logarithmic) - start) / ((end - start) or 1)
        return _LEFT + _RADIUS + share * (width - _LEFT - _RIGHT - 2 * _RADIUS)

    levels = _levels([place(dot.value) for dot in dots])
    floor = _HEAD + 2 * _RADIUS + _STEP * max(levels)
    parts = [tag("line", x1=place(tick), x2=place(tick), y1=_HEAD - 6, y2=floor + 4, class_="grid") for tick in ticks]
    parts.append(tag("line", x1=_LEFT, x2=width - _RIGHT, y1=floor + 4, y2=floor + 4, class_="base"))
    parts += [
        tag("text", _written(tick), x=place(tick), y=floor + 19, class_="tick", text_anchor=_anchor(place(tick), width))
        for tick in ticks
    ]
    parts.append(tag("text", axis, x=width / 2, y=floor + _FOOT - 1, class_="axis", text_anchor="middle"))
    order = sorted(range(len(dots)), key=lambda i: dots[i].marked)  # marked ones lie on top
    for i in order:
        x, y = place(dots[i].value), floor - _RADIUS - _STEP * levels[i] + 2
        name = tag("title", f"{dots[i].name}: {dots[i].value:.3g}")
        parts.append(tag("circle", name, cx=x, cy=y, r=_RADIUS, class_=f"mark-of {'marked' if dots[i].marked else ''}"))
    for i, above in _labels(dots, [place(dot.value) for dot in dots]):
        x = place(dots[i].value)
        anchor = _anchor(x, width)
        y = floor - _STEP * levels[i] - 2 * _RADIUS - 3 - 15 * above
        parts.append(tag("text", dots[i].name, x=x, y=max(y, 11.0), class_="note marked", text_anchor=anchor))
    box = f"0 0 {width} {math.ceil(floor + _FOOT + 4)}"
    return tag("svg", Markup("").join(parts), viewBox=box, role="img", aria_label=alt, class_="chart swarm")


def _scaled(value: float, logarithmic: bool) -> float:
    return math.log10(value) if logarithmic else value


def _powers(low: float, high: float) -> list[float]:
    """Give powers of ten from at or below the low to at or above the high end, at most five."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    every = math.ceil((last - first) / 4)
    return [10.0**power for power in range(first, last + every, every)]


def _levels(places: Sequence[float]) -> list[int]:
    """Raise dots until they do not cover those that lie already; far too many cover each other in the last level."""
    taken: list[list[float]] = [[] for _ in range(_LEVELS)]
    levels = [0] * len(places)
    for i in sorted(range(len(places)), key=lambda i: places[i]):
        free = (level for level, row in enumerate(taken) if not row or places[i] - row[-1] >= 2 * _RADIUS)
        levels[i] = next(free, _LEVELS - 1)
        taken[levels[i]].append(places[i])
    return levels


def _labels(dots: Sequence[Dot], places: Sequence[float]) -> list[tuple[int, int]]:
    """Choose which marked dots are named, at most three, and in which line above them."""
    marked = sorted((i for i, dot in enumerate(dots) if dot.marked), key=lambda i: places[i])[:3]
    return [(i, line if line and places[i] - places[marked[line - 1]] < 90 else 0) for line, i in enumerate(marked)]


def _anchor(x: float, width: int) -> str:
    """Keep a text within the drawing."""
    return "start" if x < 60 else "end" if x > width - 60 else "middle"


def _written(value: float) -> str:
    return signed(value, ",.4g")
