"""Plots of single points as inline SVG, in the style of the page's charts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from lit_backdoor.page.svg import Point, tag
from lit_backdoor.page.words import signed

__all__ = ["SHAPES", "Cloud", "Strip", "scatter", "strips"]

SHAPES = {  # paths around a point, of about one area
    "disc": "m-3.4 0a3.4 3.4 0 1 0 6.8 0a3.4 3.4 0 1 0-6.8 0z",
    "ring": "m-4 0a4 4 0 1 0 8 0a4 4 0 1 0-8 0z",
    "up": "m0-4.4l4.2 7.4h-8.4z",
    "square": "m-3.2-3.2h6.4v6.4h-6.4z",
}


@dataclass(frozen=True)
class Cloud:
    """Points of one kind.

    Attributes:
        style: CSS class that gives their color.
        shape: One of `SHAPES`.
        points: Places (x, y), y upward.
    """

    style: str
    shape: str
    points: Sequence[Point]


def scatter(
    clouds: Sequence[Cloud], low: Point, high: Point, alt: str, label: tuple[Point, str] | None = None
) -> Markup:
    """Draw points on a plane without axes, whose directions mean nothing.

    Args:
        clouds: Later ones lie on top.
        low: Left and lower end of what is shown; several plots with the same ends share one scale.
        high: Right and upper end.
        alt: The plot in words.
        label: A place, and what is written above it.
    """
    side, rim, least = 500, 16, 150
    scale = (side - 2 * rim) / max(high[0] - low[0], 1e-9)
    tall = (high[1] - low[1]) * scale
    height = max(round(tall + 2 * rim), least)  # points on a line need room for their label
    foot = (height + tall) / 2
    parts = []
    for cloud in clouds:
        places = ((rim + (x - low[0]) * scale, foot - (y - low[1]) * scale) for x, y in cloud.points)
        path = "".join(f"M{x:.1f} {y:.1f}{SHAPES[cloud.shape]}" for x, y in places)
        parts.append(tag("path", d=path, class_=f"mark-of {cloud.style}"))
    if label:
        x, y = rim + (label[0][0] - low[0]) * scale, foot - (label[0][1] - low[1]) * scale
        x, y = min(max(x, 70.0), side - 70.0), max(y - 9, 16.0)  # above the place, within the picture
        parts.append(tag("text", label[1], x=x, y=y, class_="label", text_anchor="middle"))
    return tag(
        "svg", Markup("").join(parts), viewBox=f"0 0 {side} {height}", role="img", aria_label=alt, class_="chart plane"
    )


@dataclass(frozen=True)
class Strip:
    """Values of one group on a line.

    Attributes:
        title: Text at its left.
        style: CSS class that gives its color.
        values: Value and name of each.
        mean: Place of the long mark.
    """

    title: str
    style: str
    values: Sequence[tuple[float, str]]
    mean: float


def strips(rows: Sequence[tuple[str, Sequence[Strip]]], width: int, axis: str, alt: str) -> Markup:
    """Draw rows of strips over [-1, 1], each value a dot that names itself, each mean a mark with its number.

    Args:
        rows: The text above the strips, and the strips.
        width: Width of the drawing; the page shows it at about this size.
        axis: Title of the axis.
        alt: The chart in words.
    """
    left, right, head, line, gap = 62, 52, 26, 22, 10
    ticks = (-1, -0.5, 0, 0.5, 1)

    def place(value: float) -> float:
        return left + (value + 1) / 2 * (width - left - right)

    parts, y = [], 0
    for title, group in rows:
        parts.append(tag("text", title, x=0, y=y + 16, class_="note"))
        top, y = y + head, y + head + line * len(group)
        parts += [
            tag("line", x1=place(tick), x2=place(tick), y1=top, y2=y, class_="grid" if tick else "base")
            for tick in ticks
        ]
        for i, strip in enumerate(group):
            parts += _strip(strip, place, top + line * i + line // 2, width)
        y += gap
    parts += [
        tag("text", signed(tick, "g"), x=place(tick), y=y + 8, class_="tick", text_anchor="middle") for tick in ticks
    ]
    parts.append(tag("text", axis, x=place(0), y=y + 28, class_="axis", text_anchor="middle"))
    return tag(
        "svg", Markup("").join(parts), viewBox=f"0 0 {width} {y + 34}", role="img", aria_label=alt, class_="chart"
    )


def _strip(strip: Strip, place: Callable[[float], float], y: float, width: int) -> list[Markup]:
    parts = [tag("text", strip.title, x=0, y=y + 4, class_=f"end {strip.style}")]
    parts += [
        tag("circle", tag("title", f"{name}: {value:.2f}"), cx=place(value), cy=y, r=4, class_=f"mark-of {strip.style}")
        for value, name in strip.values
    ]
    x = place(strip.mean)
    parts.append(tag("line", x1=x, x2=x, y1=y - 9, y2=y + 9, class_=f"mean {strip.style}"))
    text = signed(strip.mean, ".2f")
    return [*parts, tag("text", text, x=width, y=y + 4, class_=f"end {strip.style}", text_anchor="end")]
