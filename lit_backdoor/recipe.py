"""Objects that remember how they were made, so that a bundle can name and rebuild them."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

__all__ = ["Recorded", "recipe"]


class Recorded:
    """Base of every class that may stand in a ``bundle.json``: it keeps the arguments of its ``__init__``.

    Arguments must be plain values (None, bool, int, float, str, lists and dicts of them) or objects that
    are themselves `Recorded`. Other values are accepted, but then `recipe` refuses the object by name.
    """

    _init_args: dict[str, Any]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "__init__" in cls.__dict__:
            cls.__init__ = _recording(cls.__init__)  # type: ignore[method-assign]


def _recording(init: Callable[..., None]) -> Callable[..., None]:
    signature = inspect.signature(init)

    @functools.wraps(init)
    def wrapper(self: Any, *args: Any, **kwargs: Any) -> None:
        if "_init_args" not in self.__dict__:  # the outermost __init__ is the one that was called
            bound = signature.bind(self, *args, **kwargs)
            bound.apply_defaults()
            given = dict(bound.arguments)
            given.pop("self", None)
            object.__setattr__(self, "_init_args", {key: _plain(value) for key, value in given.items()})
        init(self, *args, **kwargs)

    return wrapper


class _Unrecordable:
    def __init__(self, value: object) -> None:
        self.type_name = type(value).__name__


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Recorded):
        return _describe(value)
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    return _Unrecordable(value)


def _describe(value: Recorded) -> dict[str, Any]:
    cls = type(value)
    return {
        "class_path": f"{cls.__module__}.{cls.__qualname__}",
        "init_args": value.__dict__.get("_init_args", {}),
    }


def recipe(value: Recorded) -> dict[str, Any]:
    """Describe an object as ``{"class_path": ..., "init_args": {...}}``, nested objects included.

    Raises:
        ValueError: If an argument was an object that cannot be written down.
    """

    def check(node: Any, path: str) -> None:
        if isinstance(node, _Unrecordable):
            raise ValueError(
                f"'{path}' of {type(value).__name__} is a {node.type_name} object, which cannot be written into a "
                "bundle. Give it by class path (a string) and arguments instead."
            )
        if isinstance(node, dict):
            for key, item in node.items():
                check(item, f"{path}.{key}" if path else key)
        elif isinstance(node, list):
            for number, item in enumerate(node):
                check(item, f"{path}[{number}]")

    described = _describe(value)
    check(described["init_args"], "")
    return described
