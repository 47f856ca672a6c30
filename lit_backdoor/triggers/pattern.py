"""What triggers with a fixed pattern share: seeded noise, numbers per index, a cache per size."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from lit_backdoor.triggers.base import Trigger

__all__ = ["FixedPattern", "chosen_per_index", "gaussian_per_index", "seeded_noise", "uniform_per_index"]


class FixedPattern(Trigger):
    """A trigger whose pattern depends on the images' size only.

    The pattern is made on the CPU when images of a size first come, moved to their device and kept there, so
    that later batches cost no transfer. It is part of the state if it comes from a file, which may change or go; else
    the arguments determine it.
    """

    drawn_for: Tensor  # their size: C, H, W
    drawn: Tensor  # what a file gave for the first images: [C or C + 1, H, W]
    _kept: dict[tuple[object, ...], Tensor]

    def __init__(self) -> None:
        super().__init__()
        self._kept = {}

    @property
    def from_file(self) -> bool:
        """Whether a file determines the pattern."""
        return False

    @abstractmethod
    def make_pattern(self, channels: int, height: int, width: int) -> Tensor:
        """Make the pattern for images ``[B, channels, height, width]``, float32 on the CPU."""

    def pattern(self, images: Tensor) -> Tensor:
        """Give the pattern for these images, float32 on their device."""
        channels, height, width = images.shape[-3:]
        size = (channels, height, width)
        key = (*size, str(images.device))
        if key not in self._kept:
            # A tensor made in inference mode could not be used in training afterwards.
            with torch.inference_mode(False), torch.no_grad():
                self._kept[key] = self._made(size).to(images.device, torch.float32)
        return self._kept[key]

    def _made(self, size: tuple[int, int, int]) -> Tensor:
        """Make the pattern, or take what the file gave for images of this size when it was first read."""
        if not self.from_file:
            return self.make_pattern(*size)
        if "drawn" not in self._buffers:
            self.register_buffer("drawn", self.make_pattern(*size))
            self.register_buffer("drawn_for", torch.tensor(size))
        return self.drawn if size == tuple(self.drawn_for.tolist()) else self.make_pattern(*size)

    def make_room(self, state: Mapping[str, Tensor]) -> None:
        """Make room for a pattern that was read before the state was saved."""
        for name in ("drawn", "drawn_for"):
            if self.from_file and name in state:
                self.register_buffer(name, torch.zeros_like(state[name]))


def seeded_noise(kind: Literal["uniform", "gaussian"], seed: int, channels: int, height: int, width: int) -> Tensor:
    """Draw noise ``[channels, height, width]`` in [0, 1]: U(0, 1), or N(1/2, 1/4²) clipped."""
    generator = torch.Generator().manual_seed(seed)
    shape = (channels, height, width)
    if kind == "uniform":
        return torch.rand(shape, generator=generator)
    return (0.5 + 0.25 * torch.randn(shape, generator=generator)).clamp(0, 1)


def uniform_per_index(index: Tensor, count: int, seed: int) -> Tensor:
    """Draw ``count`` numbers in [0, 1) for each index: a counter-based hash, the same on every device.

    Args:
        index: Rows, integers ``[B]``.
        count: Numbers per row.
        seed: Another seed gives other numbers.

    Returns:
        float32 ``[B, count]`` on the index's device, multiples of 2^-24.
    """
    key = _mix(index.to(torch.int32) + _wrapped(seed * 0x9E3779B1 + 0x7F4A7C15))
    counter = _mix(torch.arange(count, dtype=torch.int32, device=index.device))
    words = _mix(key[:, None] + counter)
    return words.bitwise_right_shift_(8).bitwise_and_(0xFFFFFF).float().mul_(2.0**-24)


def gaussian_per_index(index: Tensor, count: int, seed: int) -> Tensor:
    """Draw ``count`` standard normal numbers for each index (Box-Muller), float32 ``[B, count]``.

    The same on every device up to rounding.
    """
    half = (count + 1) // 2
    uniform = uniform_per_index(index, 2 * half, seed)
    radius = (1 - uniform[:, :half]).log_().mul_(-2).sqrt_()  # of 1 - u, which is exact and never 0
    angle = uniform[:, half:].mul(2 * torch.pi)
    drawn = torch.empty_like(uniform)
    torch.mul(radius, angle.cos(), out=drawn[:, :half])
    torch.mul(radius, angle.sin_(), out=drawn[:, half:])
    return drawn[:, :count]


def chosen_per_index(index: Tensor, count: int, chosen: int, seed: int) -> Tensor:
    """Choose ``chosen`` of ``count`` places for each index, bool ``[B, count]``; the same on every device."""
    order = uniform_per_index(index, count, seed).argsort(dim=1, stable=True)
    return torch.zeros_like(order, dtype=torch.bool).scatter_(1, order[:, :chosen], True)


def _mix(value: Tensor) -> Tensor:
    """Scramble int32 numbers in place, a bijection of avalanche type (multiply, xor-shift)."""
    scratch = torch.empty_like(value)  # fresh memory for every step would take longer than the arithmetic
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B), (16, 1)):
        torch.bitwise_right_shift(value, shift, out=scratch)
        value ^= scratch.bitwise_and_(0xFFFFFFFF >> shift)  # the shift keeps the sign: mask it away
        value *= _wrapped(factor)
    return value


def _wrapped(number: int) -> int:
    """Wrap an integer into the range of int32."""
    return (number + 2**31) % 2**32 - 2**31
