"""A bound on the tensors that building a net from an untrusted description may make."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

__all__ = ["Budget"]

SLACK = 2**25  # elements beside the weights: masks, position tables, layers that are replaced; 128 MB of float32
OPERATIONS = 50_000


class Budget(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Stops a net's constructor once it makes far more than its weights can fill, or goes on far longer.

    Sizes are checked before memory is touched, so that a description of a few bytes cannot fill it.

    Args:
        elements: Number of elements of the weights.
        tensors: Number of the weights' tensors.

    Raises:
        ValueError: Inside the context, as soon as the budget is exceeded.
    """

    def __init__(self, elements: int, tensors: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.given = elements
        self.elements = 2 * elements + SLACK
        self.operations = 50 * tensors + OPERATIONS

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Count what is made from numbers, and bound what is made from the tensors that are there."""
        weightless = _weightless(args, kwargs)
        self.elements -= 0 if weightless else _size(func, args)
        self.operations -= 1
        spread = 0 if weightless else _broadcast(args)
        if self.elements < 0 or self.operations < 0 or spread > 2 * self.given + SLACK:
            raise ValueError(
                f"The net could not be built: it is far larger than its weights, which hold {self.given:,} numbers."
            )
        return func(*args, **(kwargs or {}))


def _weightless(args: tuple[Any, ...], kwargs: dict[str, Any] | None) -> bool:
    """Say whether an operation works on the meta device, where tensors take no memory."""
    device = (kwargs or {}).get("device")
    if device is not None:
        return torch.device(device).type == "meta"
    return any(isinstance(arg, Tensor) and arg.is_meta for arg in args)


def _size(func: Any, args: tuple[Any, ...]) -> int:
    """Give the number of elements that an operation makes from numbers; 0 for one that only works on tensors."""
    name = func._overloadpacket.__name__
    if name in _FROM_NUMBERS:
        return max(0, math.ceil(_FROM_NUMBERS[name](*args)))
    sizes = next((arg for arg in args if isinstance(arg, list | tuple | torch.Size)), None)
    if sizes is None or not all(isinstance(each, int) for each in sizes):
        return 0
    if not any(isinstance(arg, Tensor) for arg in args) or name.startswith("new_"):
        return math.prod(sizes)
    return math.prod(sizes) * args[0].numel() if name == "repeat" else 0


def _broadcast(args: tuple[Any, ...]) -> int:
    """Give the number of elements of tensors that are broadcast together."""
    shapes = [reversed(arg.shape) for arg in args if isinstance(arg, Tensor)]
    return math.prod(max(sides) for sides in itertools.zip_longest(*shapes, fillvalue=1))


_FROM_NUMBERS: dict[str, Callable[..., float]] = {
    "arange": lambda *n: n[0] if len(n) == 1 else (n[1] - n[0]) / (n[2] if len(n) > 2 else 1),
    "linspace": lambda *n: n[2],
    "logspace": lambda *n: n[2],
    "eye": lambda *n: n[0] * (n[1] if len(n) > 1 and isinstance(n[1], int) else n[0]),
    "randperm": lambda *n: n[0],
}
