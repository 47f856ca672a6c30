"""Small drawings of the board: every value is a dot that its seed names."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from lit_backdoor.page.svg import tag

__all__ = ["Dot", "interval", "plane", "strip"]


@dataclass(frozen=True)
class Dot:
    """A value.

    Attributes:
        value: Where it lies.
        seed: Its seed, by which the page filters.
        style: CSS class: ``good``, ``bad``, ``soft`` or ``control`` (hollow).
        title: What it says when pointed at.
    """

    value: float
    seed: int
    style: str
    title: str


def strip(dots: Sequence[Dot], low: float, high: float, limit: float | None = None, log: bool = False) -> Markup:
    """Draw dots on a line from ``low`` to ``high``; what lies beyond an end is drawn at it.

    Args:
        dots: The values.
        low: Left end.
        high: Right end.
        limit: A value to mark: what counts as reached.
        log: Whether the scale is logarithmic.
    """
    width, height, rim = 96, 14, 5

    def place(value: float) -> float:
        ends = [math.log(max(end, 1e-9)) if log else end for end in (value, low, high)]
        share = (ends[0] - ends[1]) / ((ends[2] - ends[1]) or 1)
        return rim + min(max(share, 0.0), 1.0) * (width - 2 * rim)

    middle = height / 2
    parts = [tag("line", x1=rim, x2=width - rim, y1=middle, y2=middle, class_="grid")]
    if limit is not None:
        parts.append(tag("line", x1=place(limit), x2=place(limit), y1=1, y2=height - 1, class_="base"))
    parts += [_dot(dot, place(dot.value), middle) for dot in sorted(dots, key=lambda dot: dot.style != "control")]
    return _drawing(parts, width, height, "; ".join(dot.title for dot in dots), "strip")


def interval(mean: float, ends: tuple[float, float] | None, scale: tuple[float, float]) -> Markup:
    """Draw a mean and its interval, where there is one, on a line from end to end of a scale."""
    width, height, rim = 96, 14, 5

    def place(value: float) -> float:
        return rim + (value - scale[0]) / ((scale[1] - scale[0]) or 1) * (width - 2 * rim)

    middle, said = height / 2, f"mean rank {mean:.1f}"
    parts = [tag("line", x1=rim, x2=width - rim, y1=middle, y2=middle, class_="grid")]
    if ends:
        parts.append(tag("line", x1=place(ends[0]), x2=place(ends[1]), y1=middle, y2=middle, class_="range"))
        said += f", 95 % interval {ends[0]:.1f} to {ends[1]:.1f}"
    parts.append(tag("circle", cx=place(mean), cy=middle, r=3.6, class_="mark-of ink"))
    return _drawing(parts, width, height, said, "strip")


def plane(points: Sequence[tuple[float, Dot]], xs: tuple[float, float], limits: tuple[float, float]) -> Markup:
    """Draw dots over ACC drop (to the right) and ASR (upward, 0 to 1).

    Args:
        points: ACC drop, and a dot whose value is ASR.
        xs: Ends of the horizontal axis.
        limits: ACC drop and ASR that count as reached; the corner below them is shaded.
    """
    side, left, top, bottom, right = 200, 30, 8, 22, 8

    def x(value: float) -> float:
        return left + (min(max(value, xs[0]), xs[1]) - xs[0]) / (xs[1] - xs[0]) * (side - left - right)

    def y(value: float) -> float:
        return side - bottom - value * (side - top - bottom)

    size = {"width": x(limits[0]) - x(xs[0]), "height": y(0) - y(limits[1])}
    parts = [tag("rect", "", x=x(xs[0]), y=y(limits[1]), **size, class_="corner")]
    for share in (0.0, 0.5, 1.0):
        parts.append(
            tag("line", x1=left, x2=side - right, y1=y(share), y2=y(share), class_="grid" if share else "base")
        )
        parts.append(tag("text", f"{100 * share:g}", x=left - 6, y=y(share) + 4, class_="tick", text_anchor="end"))
    for drop in (0.0, 0.1, 0.2):
        parts.append(tag("line", x1=x(drop), x2=x(drop), y1=top, y2=y(0), class_="grid"))
        parts.append(tag("text", f"{100 * drop:g}", x=x(drop), y=side - 6, class_="tick", text_anchor="middle"))
    parts += [_dot(dot, x(drop), y(dot.value)) for drop, dot in points]
    return _drawing(parts, side, side, "; ".join(dot.title for _, dot in points), "plot")


def _dot(dot: Dot, x: float, y: float) -> Markup:
    title = tag("title", dot.title)
    style = f"mark-of {dot.style}"
    return tag("circle", title, cx=x, cy=y, r=3.6, class_=style, data_seed=dot.seed, data_value=f"{dot.value:.6g}")


def _drawing(parts: Sequence[Markup], width: int, height: int, alt: str, style: str) -> Markup:
    box = f"0 0 {width} {height}"
    return tag("svg", Markup("").join(parts), viewBox=box, role="img", aria_label=alt, class_=f"chart {style}")
