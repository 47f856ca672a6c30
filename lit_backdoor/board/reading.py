"""Strict reading of JSON objects into dataclasses: no unknown key, no missing one, no value of another type."""

from __future__ import annotations

import contextlib
import types
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from lit_backdoor.errors import unknown

__all__ = ["parse"]

T = TypeVar("T")
_BEYOND = 1e100  # no measurement gives such numbers, whose sums may be infinite; JSON reads 1e999 as infinity


def parse(kind: type[T], record: Any, where: str) -> T:
    """Build a dataclass from a JSON object.

    Args:
        kind: The dataclass.
        record: The object; keys with a default may be left out.
        where: What it is called in errors, such as ``row.attack``.

    Raises:
        ValueError: If the record does not fit.
    """
    if not isinstance(record, Mapping):
        raise ValueError(f"Expected {where} as an object, got {_shown(record)}.")
    hints = get_type_hints(kind)
    known = {item.name: item for item in fields(kind)}  # type: ignore[arg-type]
    for key in record:
        if key not in known:
            raise unknown(f"key in {where}", str(key), known)
    missing = [
        name
        for name, item in known.items()
        if name not in record and item.default is MISSING and item.default_factory is MISSING
    ]
    if missing:
        raise ValueError(f"Expected '{missing[0]}' in {where}, which is missing.")
    return kind(**{key: _value(hints[key], value, f"{where}.{key}") for key, value in record.items()})


def _value(hint: Any, value: Any, where: str) -> Any:
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is Any:
        return value
    if origin in (Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        [inner] = [argument for argument in arguments if argument is not type(None)]
        found = _value(inner, value, where)
        return None if isinstance(found, float) and not abs(found) < _BEYOND else found
    if origin is Literal:
        if value not in arguments:
            raise ValueError(f"Expected {where} as one of {', '.join(map(str, arguments))}; got {_shown(value)}.")
        return value
    if origin is dict and isinstance(value, Mapping):
        return {str(key): _value(arguments[1], item, f"{where}.{key}") for key, item in value.items()}
    if origin is tuple and isinstance(value, list | tuple):
        return tuple(_value(arguments[0], item, f"{where}[{place}]") for place, item in enumerate(value))
    if is_dataclass(hint) and isinstance(hint, type):
        return parse(hint, value, where)
    wanted = {float: int | float}.get(hint, hint)
    if origin is None and isinstance(value, wanted) and (hint is bool or not isinstance(value, bool)):
        with contextlib.suppress(OverflowError):  # of a whole number with hundreds of digits
            return float(value) if hint is float else value
    raise ValueError(f"Expected {where} as {getattr(origin or hint, '__name__', hint)}, got {_shown(value)}.")


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:59] + "…"
