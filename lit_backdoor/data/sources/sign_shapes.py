"""The faces of the synthetic traffic signs, drawn from strokes and polygons onto a square of [-1, 1]²."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

__all__ = ["SIGN_NAMES", "sign_faces"]

FACE = 160  # side of a drawn face in pixels
Mask = NDArray[np.bool_]
Points = Sequence[tuple[float, float]]

WHITE, BLACK = (240, 240, 236), (24, 24, 28)
RED, BLUE, YELLOW = (196, 28, 38), (22, 84, 168), (246, 190, 24)


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


def _digit(name: str, x: float) -> Mask:
    """Draw a digit about x, from y = -.38 to .38."""
    w, width = 0.17, 0.15
    if name == "0":
        return stroke(arc(x, 0, w, 0, 360, 0.36 / w), width)
    if name == "3":
        return stroke(arc(x - 0.02, -0.18, w, -150, 90), width) | stroke(arc(x - 0.02, 0.18, w, -90, 150), width)
    if name == "5":
        top = [(x + w, -0.36), (x - 0.14, -0.36), (x - 0.15, -0.06)]
        return stroke(top, width) | stroke(arc(x - 0.02, 0.14, 0.19, -125, 145), width)
    if name == "6":
        bowl = stroke(arc(x, 0.17, w, 0, 360), width)
        return bowl | stroke([(x - w, 0.17), (x - 0.12, -0.16), (x + 0.08, -0.37)], width)
    return stroke(arc(x, -0.19, 0.15, 0, 360), width) | stroke(arc(x, 0.18, 0.18, 0, 360), width)


def _limit(tens: str) -> Mask:
    return _digit(tens, -0.26) | _digit("0", 0.26)


def _car(x: float, y: float, size: float) -> Mask:
    outline = ((-1, 0), (-1, -0.5), (-0.6, -0.6), (-0.35, -1.1), (0.35, -1.1), (0.6, -0.6), (1, -0.5), (1, 0))
    body = polygon([(x + u * size, y + v * size) for u, v in outline])
    return body | disc(0.28 * size, x - 0.55 * size, y) | disc(0.28 * size, x + 0.55 * size, y)


def _bicycle() -> Mask:
    wheels = stroke(arc(-0.36, 0.2, 0.24, 0, 360), 0.1) | stroke(arc(0.36, 0.2, 0.24, 0, 360), 0.1)
    frame = [(-0.36, 0.2), (-0.16, -0.2), (0.24, -0.2), (0.0, 0.2), (-0.36, 0.2)]
    bar = stroke([(0.36, 0.2), (0.2, -0.36), (0.36, -0.4)], 0.1)
    return (
        wheels
        | stroke(frame, 0.1)
        | bar
        | stroke([(0.0, 0.2), (-0.2, -0.34)], 0.1)
        | stroke([(-0.32, -0.36), (-0.1, -0.36)], 0.11)
    )


def _walker() -> Mask:
    body = stroke([(0.02, -0.22), (-0.02, 0.14)], 0.2) | disc(0.13, 0.04, -0.48)
    legs = stroke([(-0.02, 0.14), (0.18, 0.34), (0.2, 0.6)], 0.13) | stroke(
        [(-0.02, 0.14), (-0.14, 0.36), (-0.3, 0.58)], 0.13
    )
    return body | legs | stroke([(0.0, -0.2), (-0.24, 0.08)], 0.1) | stroke([(0.02, -0.2), (0.26, 0.06)], 0.1)


def _roundabout() -> Mask:
    drawn = np.zeros((FACE, FACE), bool)
    for start in (-80, 40, 160):
        drawn |= stroke(arc(0, 0, 0.46, start, start + 70), 0.17)
        end = np.deg2rad(start + 108)
        drawn |= arrow(0.46 * float(np.cos(end)), 0.46 * float(np.sin(end)), start + 192, 0.34)
    return drawn


def _shift(mask: Mask, down: float, scale: float = 1.0) -> Mask:
    """Move a glyph down and scale it about the middle."""
    rows = np.round((np.arange(FACE) + 0.5 - FACE / 2 * (1 + down)) / scale + FACE / 2 - 0.5).astype(int)
    cols = np.round((np.arange(FACE) + 0.5 - FACE / 2) / scale + FACE / 2 - 0.5).astype(int)
    inside = ((rows >= 0) & (rows < FACE))[:, None] & ((cols >= 0) & (cols < FACE))
    moved: Mask = mask[rows.clip(0, FACE - 1)][:, cols.clip(0, FACE - 1)] & inside
    return moved


def _ring(glyph: Mask) -> NDArray[np.uint8]:
    return _paint((disc(0.98), WHITE), (disc(0.94), RED), (disc(0.70), WHITE), (glyph, BLACK))


def _warning(glyph: Mask) -> NDArray[np.uint8]:
    plate, red, field = (regular(3, r, 0, b, 0.24) for r, b in ((1.2, 0.2), (1.12, 0.16), (0.72, 0.06)))
    return _paint((plate, WHITE), (red, RED), (field, WHITE), (_shift(glyph, 0.27, 0.78), BLACK))


def _mandatory(glyph: Mask) -> NDArray[np.uint8]:
    return _paint((disc(0.98), WHITE), (disc(0.92), BLUE), (glyph, WHITE))


def _square(glyph: Mask) -> NDArray[np.uint8]:
    plate, field = regular(4, 1.26, 45, 0.2), regular(4, 1.17, 45, 0.14)
    return _paint((plate, WHITE), (field, BLUE), (glyph, WHITE))


def _stop(glyph: Mask) -> NDArray[np.uint8]:
    return _paint((regular(8, 1.04, 22.5), WHITE), (regular(8, 0.96, 22.5), RED), (glyph, WHITE))


def _diamond(inner: tuple[int, int, int], glyph: Mask) -> NDArray[np.uint8]:
    plate, rim, field = regular(4, 1.02, 0, 0.12), regular(4, 0.96, 0, 0.1), regular(4, 0.66, 0, 0.06)
    return _paint((plate, BLACK), (rim, WHITE if inner == YELLOW else YELLOW), (field, inner), (glyph, BLACK))


def _paint(*layers: tuple[Mask, tuple[int, int, int]]) -> NDArray[np.uint8]:
    """Paint masks over each other; alpha is 255 on the sign (``[FACE, FACE, 4]``)."""
    face = np.zeros((FACE, FACE, 4), np.uint8)
    for mask, color in layers:
        face[mask] = (*color, 255)
    return face


def _bend() -> Mask:
    return stroke([(-0.2, 0.6), (-0.2, 0.2), (0.16, -0.12), (0.16, -0.3)], 0.18) | arrow(0.16, -0.66, 0, 0.4)


def _ahead() -> Mask:
    return stroke([(0, 0.58), (0, -0.2)], 0.22) | arrow(0, -0.68, 0, 0.48)


def _turn() -> Mask:
    return stroke([(-0.28, 0.54), (-0.28, 0.02), (-0.14, -0.14), (0.2, -0.14)], 0.21) | arrow(0.66, -0.14, 90, 0.46)


def _exclamation() -> Mask:
    return polygon([(-0.14, -0.62), (0.14, -0.62), (0.07, 0.22), (-0.07, 0.22)]) | disc(0.13, 0, 0.46)


def _crossing() -> Mask:
    return stroke([(0, -0.56), (0, 0.52)], 0.2) | stroke([(-0.42, 0.06), (0.42, 0.06)], 0.2)


def _letter_p() -> Mask:
    bowl = [(-0.26, -0.52), (0.04, -0.52), *arc(0.04, -0.26, 0.26, -90, 90), (-0.26, 0.0)]
    return stroke([(-0.26, 0.56), (-0.26, -0.52)], 0.24) | stroke(bowl, 0.22)


def _letter_h() -> Mask:
    sides = stroke([(-0.34, -0.54), (-0.34, 0.54)], 0.24) | stroke([(0.34, -0.54), (0.34, 0.54)], 0.24)
    return sides | stroke([(-0.34, 0), (0.34, 0)], 0.22)


def _bar() -> Mask:
    return polygon([(-0.66, -0.18), (0.66, -0.18), (0.66, 0.18), (-0.66, 0.18)])


def _bumps() -> Mask:
    ground = polygon([(-0.5, 0.2), (0.5, 0.2), (0.5, 0.32), (-0.5, 0.32)])
    return ground | (Y <= 0.22) & (disc(0.22, -0.24, 0.2) | disc(0.22, 0.24, 0.2))


# No glyph is the mirror image of another, so that flipping an image keeps its class.
_SIGNS: dict[str, Callable[[], NDArray[np.uint8]]] = {
    "limit 30": lambda: _ring(_limit("3")),
    "limit 50": lambda: _ring(_limit("5")),
    "limit 80": lambda: _ring(_limit("8")),
    "no overtaking": lambda: _ring(_car(0.0, 0.3, 0.46)),
    "danger": lambda: _warning(_exclamation()),
    "bend": lambda: _warning(_bend()),
    "crossroads": lambda: _warning(_crossing()),
    "pedestrians": lambda: _warning(_walker()),
    "ahead only": lambda: _mandatory(_ahead()),
    "turn": lambda: _mandatory(_turn()),
    "roundabout": lambda: _mandatory(_roundabout()),
    "cycle path": lambda: _mandatory(_bicycle()),
    "parking": lambda: _square(_letter_p()),
    "hospital": lambda: _square(_letter_h()),
    "priority road": lambda: _diamond(YELLOW, disc(0)),
    "stop": lambda: _stop(_bar()),
    "no entry": lambda: _paint((disc(0.98), WHITE), (disc(0.94), RED), (_bar(), WHITE)),
    "limit 60": lambda: _ring(_limit("6")),
    "bumps": lambda: _warning(_bumps()),
    "road works": lambda: _diamond(BLACK, disc(0)),
}
SIGN_NAMES = tuple(_SIGNS)


@lru_cache(maxsize=4)
def sign_faces(num_classes: int) -> NDArray[np.uint8]:
    """Draw the first signs: RGB and alpha, uint8 ``[num_classes, FACE, FACE, 4]``."""
    return np.stack([_SIGNS[name]() for name in SIGN_NAMES[:num_classes]])
