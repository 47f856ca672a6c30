"""Error texts for people: what was expected, what was got, what to do."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

T = TypeVar("T")
_MOST_DEVICES = 4_096


def unknown(what: str, name: str, known: Iterable[str]) -> ValueError:
    """Build the error for a name that is not known, with the nearest known one.

    Args:
        what: What the name stands for, such as ``"attack"``.
        name: The name as given.
        known: The names that would have been right.

    Returns:
        A ``ValueError`` to be raised by the caller.
    """
    names, name = sorted(set(known)), str(name)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.4)
    hint = f" Did you mean '{close[0]}'?" if close else ""
    shown = ", ".join(names[:20]) + (", …" if len(names) > 20 else "")
    return ValueError(f"Unknown {what} '{name:.{_LONGEST}}'.{hint} Known: {shown or 'none'}.")


def one_of(what: str, name: str, known: Iterable[str]) -> Any:
    """Return ``name`` if it is one of the known ones.

    Raises:
        ValueError: If it is not; gives the nearest.
    """
    known = tuple(known)
    if name not in known:
        raise unknown(what, str(name), known)
    return name


def check_share(name: str, value: float, *, closed: bool = False) -> float:
    """Return ``value`` if it is a share in (0, 1), or in (0, 1] where ``closed``.

    Raises:
        ValueError: If it is not.
    """
    if 0 < value < 1 or (closed and value == 1):
        return float(value)
    raise ValueError(f"Expected {name} in (0, 1{']' if closed else ')'}, got {value}.")


def check_rate(name: str, value: float) -> float:
    """Return ``value`` if it is a learning rate or a weight: finite, and 0 or more.

    Raises:
        ValueError: If it is not.
    """
    if 0 <= value < math.inf:
        return value
    raise ValueError(f"Expected {name} to be finite and 0 or more, got {value}.")


def check_statistics(mean: Sequence[float], std: Sequence[float]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation of each channel as tuples.

    Raises:
        ValueError: If they are not of one length, not finite numbers, or a deviation is not above 0.
    """
    try:
        pair = tuple(map(float, mean)), tuple(map(float, std))
    except (TypeError, ValueError):
        pair = (), ()
    values = [*pair[0], *pair[1]]
    if not values or len(pair[0]) != len(pair[1]) or not all(map(math.isfinite, values)) or min(pair[1]) <= 0:
        raise ValueError(
            f"Expected as many means as positive stds, one per channel, all of them finite, got {mean} and {std}."
        )
    return pair


def check_devices(devices: Any) -> None:
    """Check how many devices of a machine a Trainer is asked for: Lightning makes a list of them, however many.

    Raises:
        ValueError: If they are more than any machine has.
    """
    if str(devices).isdigit() and int(devices) > _MOST_DEVICES:
        raise ValueError(f"Expected the Trainer's devices to be at most {_MOST_DEVICES:,} of a machine, got {devices}.")


def check_seed(seed: int) -> int:
    """Return a seed if every generator takes it: 0 or more, below 2^32.

    Raises:
        ValueError: If it is not.
    """
    if 0 <= seed < 2**32:
        return seed
    raise ValueError(f"Expected a seed from 0 to {2**32 - 1}, got {seed}.")


def settings(what: str, value: Any, kind: type[T]) -> T | None:
    """Return settings that were given as an object of their class, or None.

    Raises:
        ValueError: If they were given as anything else, such as a dict.
    """
    if value is None or isinstance(value, kind):
        return value
    raise ValueError(f"Expected {what} as {kind.__name__}(…) or None, got {value!r}.")


_LONGEST = 200


def first_lines(text: str, count: int = 4) -> str:
    """Put the first lines of a long message into one, each cut where it is long, and say how many were left out."""
    lines = [line.strip() for line in text.splitlines()]
    lines = [line if len(line) <= _LONGEST else f"{line[:_LONGEST]} …" for line in lines]
    return " ".join(lines[:count]) + (f" … and {len(lines) - count} more." if len(lines) > count else "")


class DivergedError(RuntimeError):
    """Training stopped because its loss was no longer finite."""


class RunStoppedError(RuntimeError):
    """A stage ended before it was complete."""
