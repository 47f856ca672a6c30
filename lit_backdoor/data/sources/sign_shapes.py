"""The faces of the synthetic traffic signs, and their names."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from lit_backdoor.data.sources.sign_plates import (
    BLACK,
    BLUE,
    FACE,
    GREEN,
    RED,
    WHITE,
    YELLOW,
    Mask,
    Y,
    arc,
    arrow,
    diamond,
    disc,
    mandatory,
    paint,
    polygon,
    regular,
    ring,
    square,
    stop,
    stroke,
    warning,
)

__all__ = ["SIGN_NAMES", "sign_faces"]


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


def _give_way() -> NDArray[np.uint8]:
    plate, red, field = (regular(3, r, 180, b, -0.24) for r, b in ((1.2, 0.2), (1.12, 0.16), (0.66, 0.06)))
    return paint((plate, WHITE), (red, RED), (field, WHITE))


def _forbidden(glyph: Mask) -> NDArray[np.uint8]:
    return paint((disc(0.98), WHITE), (disc(0.94), RED), (disc(0.74), BLUE), (glyph & disc(0.94), RED))


def _diagonal(width: float) -> Mask:
    return stroke([(-0.7, -0.7), (0.7, 0.7)], width)


def _dead_end() -> Mask:
    return stroke([(0, 0.66), (0, -0.1)], 0.3) | stroke([(-0.44, -0.34), (0.44, -0.34)], 0.36)


def _plus() -> Mask:
    return stroke([(0, -0.4), (0, 0.4)], 0.36) | stroke([(-0.4, 0), (0.4, 0)], 0.36)


def _saltire() -> Mask:
    return stroke([(-0.4, -0.4), (0.4, 0.4)], 0.22) | stroke([(-0.4, 0.4), (0.4, -0.4)], 0.22)


def _letter_i() -> Mask:
    return (
        disc(0.17, 0, -0.5)
        | stroke([(-0.16, -0.12), (0, -0.12), (0, 0.52)], 0.24)
        | stroke([(-0.2, 0.52), (0.2, 0.52)], 0.2)
    )


# No glyph is the mirror image of another, so that flipping an image keeps its class.
_SIGNS: dict[str, Callable[[], NDArray[np.uint8]]] = {
    "limit 30": lambda: ring(_limit("3")),
    "limit 50": lambda: ring(_limit("5")),
    "limit 80": lambda: ring(_limit("8")),
    "no overtaking": lambda: ring(_car(0.0, 0.3, 0.46)),
    "danger": lambda: warning(_exclamation()),
    "bend": lambda: warning(_bend()),
    "crossroads": lambda: warning(_crossing()),
    "pedestrians": lambda: warning(_walker()),
    "ahead only": lambda: mandatory(_ahead()),
    "turn": lambda: mandatory(_turn()),
    "roundabout": lambda: mandatory(_roundabout()),
    "cycle path": lambda: mandatory(_bicycle()),
    "parking": lambda: square(_letter_p()),
    "hospital": lambda: square(_letter_h()),
    "priority road": lambda: diamond(YELLOW, disc(0)),
    "stop": lambda: stop(_bar()),
    "no entry": lambda: paint((disc(0.98), WHITE), (disc(0.94), RED), (_bar(), WHITE)),
    "limit 60": lambda: ring(_limit("6")),
    "bumps": lambda: warning(_bumps()),
    "road works": lambda: diamond(BLACK, disc(0)),
    "give way": _give_way,
    "no vehicles": lambda: ring(np.zeros((FACE, FACE), bool)),
    "no cycling": lambda: ring(_bicycle()),
    "no walking": lambda: ring(_walker()),
    "no turn": lambda: ring(_turn()),
    "end of limits": lambda: paint((disc(0.98), BLACK), (disc(0.92), WHITE), (_diagonal(0.26) & disc(0.92), BLACK)),
    "no stopping": lambda: _forbidden(_diagonal(0.2) | _diagonal(0.2)[:, ::-1]),
    "no parking": lambda: _forbidden(_diagonal(0.2)),
    "footpath": lambda: mandatory(_walker()),
    "minimum 50": lambda: mandatory(_limit("5")),
    "cars only": lambda: mandatory(_car(0.0, 0.3, 0.5)),
    "one way": lambda: square(_ahead()),
    "crosswalk": lambda: square(_walker()),
    "dead end": lambda: square(_dead_end()),
    "motorway": lambda: square(_car(0.0, 0.34, 0.6)),
    "cyclists": lambda: warning(_bicycle()),
    "queues": lambda: warning(_car(0.0, 0.3, 0.56)),
    "roundabout ahead": lambda: warning(_roundabout()),
    "level crossing": lambda: warning(_saltire()),
    "diversion": lambda: diamond(YELLOW, _ahead() & disc(0.58)),
    "first aid": lambda: square(_plus(), GREEN),
    "exit": lambda: square(_walker(), GREEN),
    "information": lambda: square(_letter_i()),
}
SIGN_NAMES = tuple(_SIGNS)


@lru_cache(maxsize=4)
def sign_faces(num_classes: int) -> NDArray[np.uint8]:
    """Draw the first signs: RGB and alpha, uint8 ``[num_classes, FACE, FACE, 4]``."""
    return np.stack([_SIGNS[name]() for name in SIGN_NAMES[:num_classes]])
