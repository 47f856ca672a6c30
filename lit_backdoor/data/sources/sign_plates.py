"""Strokes, polygons and plates that synthetic traffic signs are drawn from, on a square of [-1, 1]²."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "BLACK",
    "BLUE",
    "FACE",
    "GREEN",
    "RED",
    "WHITE",
    "YELLOW",
    "Mask",
    "Y",
    "arc",
    "arrow",
    "diamond",
    "disc",
    "mandatory",
    "paint",
    "polygon",
    "regular",
    "ring",
    "square",
    "stop",
    "stroke",
    "warning",
]

FACE = 160  # side of a drawn face in pixels
Mask = NDArray[np.bool_]
Points = Sequence[tuple[float, float]]

WHITE, BLACK = (240, 240, 236), (24, 24, 28)
RED, BLUE, YELLOW, GREEN = (196, 28, 38), (22, 84, 168), (246, 190, 24), (12, 122, 74)


def _grid() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    ticks = (np.arange(FACE) + 0.5) / FACE * 2 - 1
    return np.broadcast_to(ticks, (FACE, FACE)), np.broadcast_to(ticks[:, None], (FACE, FACE))


X, Y = _grid()


def disc(radius: float, x: float = 0, y: float = 0) -> Mask:
    """Fill a disc."""
    return (X - x) ** 2 + (Y - y) ** 2 <= radius**2


def polygon(points: Points) -> Mask:
    """Fill a polygon (even-odd rule)."""
    inside = np.zeros((FACE, FACE), bool)
    for (x0, y0), (x1, y1) in zip(points, [*points[1:], points[0]], strict=True):
        if y0 != y1:
            inside ^= ((y0 > Y) != (y1 > Y)) & ((x1 - x0) * (Y - y0) / (y1 - y0) + x0 > X)
    return inside


def regular(corners: int, radius: float, turn: float, round_by: float = 0.0, y: float = 0.0) -> Mask:
    """Fill a regular polygon, its corners rounded; ``turn`` in degrees."""
    angles = np.deg2rad(turn + 360 / corners * np.arange(corners))
    points = [((radius - round_by) * np.sin(a), y - (radius - round_by) * np.cos(a)) for a in angles]
    filled = polygon(points)
    return filled | stroke([*points, points[0]], 2 * round_by) if round_by else filled


def stroke(points: Points, width: float) -> Mask:
    """Draw a line through points with round ends."""
    drawn = np.zeros((FACE, FACE), bool)
    for (x0, y0), (x1, y1) in itertools.pairwise(points):
        dx, dy = x1 - x0, y1 - y0
        along = np.clip(((X - x0) * dx + (Y - y0) * dy) / max(dx * dx + dy * dy, 1e-9), 0, 1)
        drawn |= (X - x0 - along * dx) ** 2 + (Y - y0 - along * dy) ** 2 <= (width / 2) ** 2
    return drawn


def arc(x: float, y: float, radius: float, start: float, end: float, height: float = 1.0) -> list[tuple[float, float]]:
    """Points of an arc; degrees clockwise from the right, an ellipse where ``height`` is not 1."""
    angles = np.deg2rad(np.linspace(start, end, 25))
    return [(x + radius * float(np.cos(a)), y + radius * height * float(np.sin(a))) for a in angles]


def arrow(x: float, y: float, angle: float, size: float) -> Mask:
    """Fill an arrow head whose tip is at x, y; 0 degrees points up."""
    a = np.deg2rad(angle)
    corners = [(0, 0), (0.75 * size, size), (-0.75 * size, size)]
    return polygon([(x + u * np.cos(a) - v * np.sin(a), y + u * np.sin(a) + v * np.cos(a)) for u, v in corners])


def _shift(mask: Mask, down: float, scale: float = 1.0) -> Mask:
    """Move a glyph down and scale it about the middle."""
    rows = np.round((np.arange(FACE) + 0.5 - FACE / 2 * (1 + down)) / scale + FACE / 2 - 0.5).astype(int)
    cols = np.round((np.arange(FACE) + 0.5 - FACE / 2) / scale + FACE / 2 - 0.5).astype(int)
    inside = ((rows >= 0) & (rows < FACE))[:, None] & ((cols >= 0) & (cols < FACE))
    moved: Mask = mask[rows.clip(0, FACE - 1)][:, cols.clip(0, FACE - 1)] & inside
    return moved


def ring(glyph: Mask) -> NDArray[np.uint8]:
    """Draw a prohibition: a white disc with a red ring."""
    return paint((disc(0.98), WHITE), (disc(0.94), RED), (disc(0.70), WHITE), (glyph, BLACK))


def warning(glyph: Mask) -> NDArray[np.uint8]:
    """Draw a warning triangle."""
    plate, red, field = (regular(3, r, 0, b, 0.24) for r, b in ((1.2, 0.2), (1.12, 0.16), (0.72, 0.06)))
    return paint((plate, WHITE), (red, RED), (field, WHITE), (_shift(glyph, 0.27, 0.78), BLACK))


def mandatory(glyph: Mask) -> NDArray[np.uint8]:
    """Draw a blue disc."""
    return paint((disc(0.98), WHITE), (disc(0.92), BLUE), (glyph, WHITE))


def square(glyph: Mask, color: tuple[int, int, int] = BLUE) -> NDArray[np.uint8]:
    """Draw a square plate."""
    plate, field = regular(4, 1.26, 45, 0.2), regular(4, 1.17, 45, 0.14)
    return paint((plate, WHITE), (field, color), (glyph, WHITE))


def stop(glyph: Mask) -> NDArray[np.uint8]:
    """Draw a red octagon."""
    return paint((regular(8, 1.04, 22.5), WHITE), (regular(8, 0.96, 22.5), RED), (glyph, WHITE))


def diamond(inner: tuple[int, int, int], glyph: Mask) -> NDArray[np.uint8]:
    """Draw a diamond."""
    plate, rim, field = regular(4, 1.02, 0, 0.12), regular(4, 0.96, 0, 0.1), regular(4, 0.66, 0, 0.06)
    return paint((plate, BLACK), (rim, WHITE if inner == YELLOW else YELLOW), (field, inner), (glyph, BLACK))


def paint(*layers: tuple[Mask, tuple[int, int, int]]) -> NDArray[np.uint8]:
    """Paint masks over each other; alpha is 255 on the sign (``[FACE, FACE, 4]``)."""
    face = np.zeros((FACE, FACE, 4), np.uint8)
    for mask, color in layers:
        face[mask] = (*color, 255)
    return face
