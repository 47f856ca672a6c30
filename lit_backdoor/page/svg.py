"""Charts as inline SVG: they take their colors from the page, so they are right in light and in dark."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from markupsafe import Markup, escape

__all__ = ["Bars", "Line", "histogram", "line_chart", "nice_ticks", "tag"]

Point = tuple[float, float]


def tag(name: str, content: str | Markup = "", **attributes: object) -> Markup:
    """Write an element; everything is escaped but `Markup`. ``class_`` is class, ``text_anchor`` is text-anchor."""
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(_short(value))}"' for key, value in attributes.items()
    )
    return Markup(f"<{name}{written}>{escape(content)}</{name}>")


def _short(value: object) -> object:
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else value


@dataclass(frozen=True)
class Line:
    """A line of a chart.

    Attributes:
        name: What is written at its end.
        style: CSS class that gives its color.
        points: Places (x, y).
        start: Where it comes from: a point before training, drawn hollow and led from by a dashed line.
        value: What is written behind the name.
    """

    name: str
    style: str
    points: Sequence[Point]
    start: Point | None = None
    value: str = ""


@dataclass(frozen=True)
class _Frame:
    """The inner rectangle of a chart and its scales."""

    width: int
    height: int
    left: int
    right: int
    low: Point
    high: Point
    top: int = 14
    bottom: int = 38

    def x(self, value: float) -> float:
        span = self.high[0] - self.low[0] or 1
        return self.left + (value - self.low[0]) / span * (self.width - self.left - self.right)

    def y(self, value: float) -> float:
        span = self.high[1] - self.low[1] or 1
        return self.height - self.bottom - (value - self.low[1]) / span * (self.height - self.top - self.bottom)

    def svg(self, parts: Sequence[Markup], alt: str) -> Markup:
        return tag(
            "svg", Markup("").join(parts), viewBox=f"0 0 {self.width} {self.height}", role="img", aria_label=alt,
            class_="chart",
        )  # fmt: skip

    def axes(self, xs: Sequence[tuple[float, str]], ys: Sequence[tuple[float, str]], title: str) -> list[Markup]:
        end = self.width - self.right
        parts = [
            tag("line", x1=self.left, x2=end, y1=self.y(y), y2=self.y(y), class_="grid" if i else "base")
            for i, (y, _) in enumerate(ys)
        ]
        parts += [
            tag("text", text, x=self.left - 8, y=self.y(y) + 4, class_="tick", text_anchor="end") for y, text in ys
        ]
        floor = self.height - self.bottom
        parts += [tag("text", text, x=self.x(x), y=floor + 17, class_="tick", text_anchor="middle") for x, text in xs]
        middle = (self.left + end) / 2
        return [*parts, tag("text", title, x=middle, y=self.height - 4, class_="axis", text_anchor="middle")]


def nice_ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Give round numbers from at or below ``low`` to at or above ``high``."""
    raw = (high - low or 1) / most
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(number * step, 10) for number in range(first, max(last, first + 1) + 1)]


def line_chart(lines: Sequence[Line], ys: Sequence[tuple[float, str]], title: str, alt: str) -> Markup:
    """Draw lines over whole numbers (epochs), each with its name at its end.

    Args:
        lines: At least one, each with a point.
        ys: Ticks of the vertical axis, from its low to its high end.
        title: Of the horizontal axis.
        alt: The chart in words.
    """
    xs = [x for line in lines for x, _ in (*line.points, *([line.start] if line.start else []))]
    low, high = min(xs), max(xs)
    if low == high:
        low -= 1
    frame = _Frame(350, 214, 42, 84, (low, ys[0][0]), (high, ys[-1][0]))
    every = max(1, math.ceil((high - low) / 6))
    ticks = [(float(x), f"{x:g}") for x in range(int(low), int(high) + 1) if (int(high) - x) % every == 0]
    parts = frame.axes(ticks, ys, title)
    for line in lines:
        places = [(frame.x(x), frame.y(y)) for x, y in line.points]
        if line.start:
            x, y = frame.x(line.start[0]), frame.y(line.start[1])
            parts.append(tag("path", d=_path([(x, y), places[0]]), class_=f"line lead {line.style}"))
            parts.append(tag("circle", cx=x, cy=y, r=3.5, class_=f"dot hollow {line.style}"))
        parts.append(tag("path", d=_path(places), class_=f"line {line.style}"))
        parts += [
            tag("circle", cx=x, cy=y, r=3.0, class_=f"dot {line.style}")
            for x, y in (places if len(places) <= 12 else places[-1:])
        ]
    ends = _apart([frame.y(line.points[-1][1]) for line in lines], 15, frame.top, frame.height - frame.bottom)
    for line, y in zip(lines, ends, strict=True):
        text = tag("tspan", line.name, class_="name") + Markup(" ") + tag("tspan", line.value)
        parts.append(tag("text", text, x=frame.width - frame.right + 9, y=y + 4, class_=f"end {line.style}"))
    return frame.svg(parts, alt)


def _path(points: Sequence[Point]) -> str:
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)


def _apart(places: Sequence[float], gap: float, top: float, bottom: float) -> list[float]:
    """Move labels apart so that they do not cover each other, within the chart."""
    order = sorted(range(len(places)), key=lambda i: places[i])
    moved = list(places)
    floor = top - gap
    for i in order:
        moved[i] = floor = max(moved[i], floor + gap)
    ceiling = bottom + gap
    for i in reversed(order):
        moved[i] = ceiling = min(moved[i], ceiling - gap)
    return moved


@dataclass(frozen=True)
class Bars:
    """One group of a histogram: the share of its rows in each bin."""

    style: str
    shares: Sequence[float] = field(default_factory=tuple)


def histogram(
    groups: Sequence[Bars],
    edges: Sequence[float],
    width: int,
    xs: Sequence[tuple[float, str]],
    title: str,
    alt: str,
    threshold: tuple[float, str] | None = None,
    percent: Callable[[float], str] = lambda share: f"{100 * share:g}%",
) -> Markup:
    """Draw groups as areas over the same bins, each scaled to its own number of rows.

    Args:
        groups: Shares per bin, in [0, 1].
        edges: Edges of the bins, one more than bins.
        width: Width of the drawing; the page shows it at about this size.
        xs: Ticks of the horizontal axis.
        title: Of the horizontal axis.
        alt: The chart in words.
        threshold: A place to mark, and what is written at it.
        percent: Writes the vertical axis.
    """
    ys = nice_ticks(0, max(max(group.shares) for group in groups), 4)
    frame = _Frame(width, 270, 46, 14, (edges[0], 0), (edges[-1], ys[-1]), top=34)
    parts = frame.axes(xs, [(y, percent(y)) for y in ys], title)
    for group in groups:
        parts += [tag("path", d=shape, class_=f"area {group.style}") for shape in _areas(frame, group.shares, edges)]
    if threshold:
        x = frame.x(threshold[0])
        parts.append(tag("line", x1=x, x2=x, y1=22, y2=frame.y(0), class_="threshold"))
        left = x < width / 2
        parts.append(
            tag(
                "text",
                threshold[1],
                x=x + (-1 if left else 1),
                y=15,
                class_="note",
                text_anchor="start" if left else "end",
            )
        )
    return frame.svg(parts, alt)


def _areas(frame: _Frame, shares: Sequence[float], edges: Sequence[float]) -> list[str]:
    """Outline each run of bins that are not empty."""
    shapes: list[str] = []
    run: list[Point] = []
    for i, share in enumerate((*shares, 0.0)):
        if share > 0:
            run += [(frame.x(edges[i]), frame.y(share)), (frame.x(edges[i + 1]), frame.y(share))]
        elif run:
            shapes.append(_path([(run[0][0], frame.y(0)), *run, (run[-1][0], frame.y(0))]) + "Z")
            run = []
    return shapes
