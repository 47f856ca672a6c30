"""Photographs of synthetic traffic signs: pose, background, occlusion, light, blur and noise, all from a seed.

Only sums, products, quotients and look-ups touch pixels, and random numbers are raw draws of PCG64, so that a
seed gives the same pixels on every machine.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lit_backdoor.data.sources.sign_shapes import sign_faces

__all__ = ["CHUNK", "photograph"]

Floats = NDArray[np.float32]
CHUNK = 125  # images drawn at once; part of what a seed means
_OVER = 3  # samples per pixel and side
# what stands behind signs: sky, cloud, foliage, grass, brick, concrete, asphalt, night
_SCENERY = np.array(
    [
        (132, 176, 222),
        (214, 222, 230),
        (58, 92, 48),
        (112, 138, 70),
        (150, 96, 74),
        (166, 160, 150),
        (92, 94, 98),
        (44, 48, 62),
    ],
    np.float32,
)


@dataclass(frozen=True)
class _Draws:
    """Random numbers for a chunk of ``count`` images."""

    rng: np.random.Generator
    count: int

    def uniform(self, low: float, high: float, *shape: int) -> Floats:
        """Draw float32 ``[count, *shape, 1, 1]``."""
        return (low + (high - low) * self.rng.random((self.count, *shape, 1, 1))).astype(np.float32)

    def chance(self, probability: float) -> Floats:
        """Draw 0 or 1, ``[count, 1, 1, 1]``."""
        return (self.rng.random((self.count, 1, 1, 1)) < probability).astype(np.float32)

    def color(self) -> Floats:
        """Draw a color of the scenery ``[count, 3, 1, 1]``, somewhat off."""
        chosen = _SCENERY[(self.rng.random(self.count) * len(_SCENERY)).astype(int)][:, :, None, None]
        color: Floats = chosen * self.uniform(0.7, 1.2, 1) + self.uniform(-18, 18, 3)
        return color


def photograph(labels: NDArray[np.int64], num_classes: int, size: int, seed: tuple[int, ...]) -> NDArray[np.uint8]:
    """Draw one picture per label.

    Args:
        labels: int64 ``[B]``, B at most `CHUNK`.
        num_classes: How many signs there are.
        size: Side of the pictures in pixels.
        seed: Non-negative integers that decide everything else.

    Returns:
        uint8 ``[B, 3, size, size]``.
    """
    draws = _Draws(np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed))), len(labels))
    x, y = _pixels(size)
    scene = _background(draws, x, y)
    center_x, center_y = draws.uniform(-0.18, 0.18, 1), draws.uniform(-0.18, 0.18, 1)
    radius = draws.uniform(0.47, 0.86, 1)
    _cover(scene, np.abs(x - center_x) - 0.07 * radius, draws.uniform(90, 170, 1) * (y > center_y), size, y > center_y)
    sign, alpha = _sign(draws, labels, num_classes, size, center_x, center_y, radius)
    scene *= 1 - alpha
    scene += sign * draws.uniform(0.8, 1.05, 1)
    _occlude(draws, scene, x, y, center_x, center_y, radius, size)
    return _expose(draws, scene, x, y)


def _pixels(size: int, over: int = 1) -> tuple[Floats, Floats]:
    ticks = ((np.arange(size * over) + 0.5) / (size * over) * 2 - 1).astype(np.float32)
    return ticks[None, :], ticks[:, None]


def _sign(
    draws: _Draws,
    labels: NDArray[np.int64],
    num_classes: int,
    size: int,
    center_x: Floats,
    center_y: Floats,
    radius: Floats,
) -> tuple[Floats, Floats]:
    """Look the signs up under a rotation, a squeeze and a perspective: color times alpha, and alpha in [0, 1]."""
    faces = np.pad(sign_faces(num_classes), ((0, 0), (1, 1), (1, 1), (0, 0)))
    side = faces.shape[1]
    x, y = (ticks - center[:, 0] for ticks, center in zip(_pixels(size, _OVER), (center_x, center_y), strict=True))
    turn = draws.uniform(-15, 15)[:, :, :].astype(np.float64) * np.pi / 180
    cos, sin = np.cos(turn).astype(np.float32), np.sin(turn).astype(np.float32)
    across, along = radius[:, 0] * draws.uniform(0.72, 1.0), radius[:, 0] * draws.uniform(0.9, 1.0)
    depth = 1 + draws.uniform(-0.22, 0.22) * x + draws.uniform(-0.16, 0.16) * y
    half = np.float32((side - 2) / 2)
    cols = (cos / across * x + sin / across * y) / depth * half + np.float32(side / 2)
    rows = (cos / along * y - sin / along * x) / depth * half + np.float32(side / 2)
    flat = np.clip(rows, 0, side - 1).astype(np.int32) * side + np.clip(cols, 0, side - 1).astype(np.int32)
    flat += (labels * side * side).astype(np.int32)[:, None, None]
    taken = faces.reshape(-1, 4).view(np.uint32)[:, 0].take(flat).view(np.uint8)
    fine = taken.reshape(len(labels), size, _OVER, size, _OVER, 4)
    total = np.zeros((len(labels), size, size, 4), np.uint16)
    for row in range(_OVER):
        for col in range(_OVER):
            total += fine[:, :, row, :, col]
    mean: Floats = total.transpose(0, 3, 1, 2).astype(np.float32) / np.float32(_OVER * _OVER)
    return mean[:, :3], mean[:, 3:] / np.float32(255)


def _noise(draws: _Draws, cells: int, channels: int, size: int) -> Floats:
    """Interpolate random values in [-1, 1] at ``cells`` x ``cells`` places over the picture, bilinearly."""
    values = (draws.rng.random((draws.count, channels, cells + 1, cells + 1)) * 2 - 1).astype(np.float32)
    place = ((np.arange(size) + 0.5) / size * cells).astype(np.float32)
    low = place.astype(int)
    share = place - low
    rows = values[:, :, low] * (1 - share)[:, None] + values[:, :, low + 1] * share[:, None]
    noise: Floats = rows[..., low] * (1 - share) + rows[..., low + 1] * share
    return noise


def _background(draws: _Draws, x: Floats, y: Floats) -> Floats:
    """Draw a horizon, some buildings and textures: ``[B, 3, H, W]`` in about 0 to 255."""
    size = x.shape[-1]
    top, bottom = draws.color(), draws.color()
    horizon = np.clip((y - draws.uniform(-0.6, 0.8, 1)) * draws.uniform(0.5, 12, 1) + 0.5, 0, 1)
    scene: Floats = top + (bottom - top) * (horizon + 0 * x)
    for _ in range(3):
        slope = draws.uniform(-0.35, 0.35, 1)
        across = np.abs(x + slope * y - draws.uniform(-1, 1, 1)) - draws.uniform(0.08, 0.5, 1)
        upward = np.abs(y - slope * x - draws.uniform(-1, 1, 1)) - draws.uniform(0.1, 0.9, 1)
        _cover(scene, np.maximum(across, upward), draws.color(), size)
    for cells, strength in ((3, 26), (7, 22), (14, 18)):
        scene += _noise(draws, cells, 1, size) * draws.uniform(0, strength, 1)
    scene += _noise(draws, 4, 3, size) * draws.uniform(0, 22, 1)
    return scene


def _cover(
    scene: Floats, distance: Floats, color: Floats, size: int, where: Floats | NDArray[np.bool_] | float = 1.0
) -> None:
    """Paint a shape given by its signed distance (in half sides), its edge one pixel soft."""
    alpha = np.clip(np.float32(0.5) - distance * np.float32(size / 2), 0, 1) * where
    scene += (color - scene) * alpha


def _occlude(
    draws: _Draws, scene: Floats, x: Floats, y: Floats, center_x: Floats, center_y: Floats, radius: Floats, size: int
) -> None:
    """Put a leaf, a branch or a sticker over some signs."""
    for probability, narrow in ((0.3, 0.35), (0.2, 0.12)):
        u = x - center_x - draws.uniform(-0.9, 0.9, 1) * radius
        v = y - center_y - draws.uniform(-0.9, 0.9, 1) * radius
        lean = draws.uniform(-1, 1, 1)
        long, short = u + lean * v, v - lean * u
        extent = radius * draws.uniform(0.2, 0.42, 1)
        distance = np.maximum(np.abs(long) - extent * (0.42 / narrow) ** 0.5, np.abs(short) - extent * narrow)
        _cover(scene, distance, draws.color(), size, draws.chance(probability))


def _blur(scene: Floats, axis: int, strength: Floats) -> Floats:
    """Mix each pixel with the mean of its neighbors along an axis."""
    padded = np.pad(scene, [(1, 1) if a == axis else (0, 0) for a in range(4)], mode="edge")
    count = scene.shape[axis]
    before, after = (np.take(padded, np.arange(start, start + count), axis) for start in (0, 2))
    return scene + strength * ((before + after) * np.float32(0.5) - scene)


def _expose(draws: _Draws, scene: Floats, x: Floats, y: Floats) -> NDArray[np.uint8]:
    """Apply shadow, haze, light, color cast, blur and noise, and round to bytes."""
    edge = (x + draws.uniform(-1.5, 1.5, 1) * y - draws.uniform(-0.8, 0.8, 1)) * draws.uniform(3, 16, 1)
    scene *= 1 - np.clip(edge + np.float32(0.5), 0, 1) * draws.uniform(0.2, 0.55, 1) * draws.chance(0.35)
    haze = draws.uniform(0, 0.4, 1) * draws.chance(0.4)
    scene += (draws.uniform(150, 225, 1) - scene) * haze
    scene *= draws.uniform(0.4, 1.3, 1) * draws.uniform(0.9, 1.1, 3)
    for axis in (2, 3):
        strength = draws.uniform(0, 0.66, 1)
        for _ in range(2):
            scene = _blur(scene, axis, strength)
    grain = np.frombuffer(draws.rng.bytes(scene.size * 2), np.uint8).reshape(2, *scene.shape)
    noise = (grain[0].astype(np.float32) - grain[1]) * np.float32(1 / 104)  # triangular, standard deviation 1
    scene = scene + noise * draws.uniform(1, 15, 1)
    return (np.clip(scene, 0, 255) + np.float32(0.5)).astype(np.uint8)
