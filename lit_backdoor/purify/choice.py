"""The defense that fits what an audit found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

__all__ = ["AUTO", "Choice", "choose", "find_class"]

AUTO = "auto"
_ONE_TARGET = "pgbd_stamps_anchored"
_NO_TARGET = "pgbd_nt_stamps"  # takes each class as the target in turn


class Choice(NamedTuple):
    """A defense, None to leave the suspect as it is; the target class that it is given; and why."""

    defense: str | None
    target: int | None
    why: str


def choose(audit: Mapping[str, Any], names: Sequence[str]) -> Choice:
    """Choose a defense by an audit's verdict and the classes that its detectors decided for.

    Args:
        audit: The content of ``audit.json``.
        names: Names of the model's outputs.

    Raises:
        ValueError: If the audit has no verdict.
    """
    verdict, targets = audit.get("verdict"), list(audit.get("targets") or ())
    if verdict is None:
        raise ValueError(
            f"Expected a verdict of the audit to choose a defense by, got none. Name a defense: --with {_NO_TARGET}."
        )
    if verdict == "clean":
        return Choice(None, None, "the audit found nothing")
    most = max((len(each.get("detectors") or ()) for each in targets), default=0)
    leading = [find_class(each["class"], names) for each in targets if len(each.get("detectors") or ()) == most]
    if len(leading) == 1:
        return Choice(_ONE_TARGET, leading[0], f"{verdict}, target '{names[leading[0]]}'")
    said = ", ".join(f"'{names[label]}'" for label in leading[:3])
    return Choice(
        _NO_TARGET, None, f"{verdict}, {f'one of {len(leading)} targets ({said})' if leading else 'no target'}"
    )


def find_class(given: str | int, names: Sequence[str]) -> int:
    """Give the output that a class's name or number stands for; a name comes first.

    Raises:
        ValueError: If there is no such class.
    """
    if isinstance(given, str) and given in names:
        return names.index(given)
    number = int(given) if str(given).isdecimal() else -1
    if not 0 <= number < len(names):
        shown = ", ".join(names[:5]) + (", …" if len(names) > 5 else "")
        raise ValueError(f"Expected a class as a number from 0 to {len(names) - 1} or a name ({shown}), got '{given}'.")
    return number
