"""Objects that remember how they were made, so that a bundle can name and rebuild them."""

from __future__ import annotations

import functools
import importlib
import inspect
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, cast

from lit_backdoor.errors import unknown

__all__ = ["Recorded", "arguments_of", "load_factory", "rebuild", "rebuilding", "recipe", "trusting"]


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
                "bundle. Give it by class path (a string) and arguments instead; a wrapped net, by wrap_classifier's "
                "argument recipe."
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


# None: the program itself builds. Else a bundle is being rebuilt, and these module prefixes are trusted besides.
_trust: ContextVar[tuple[str, ...] | None] = ContextVar("_trust", default=None)
_granted: ContextVar[tuple[str, ...]] = ContextVar("_granted", default=())  # what the whole run trusts


# What a class raises that is given arguments of a wrong type, or asked for a net too large for the memory.
_REFUSALS = (
    TypeError, AttributeError, LookupError, ArithmeticError, AssertionError, RuntimeError, MemoryError,
)  # fmt: skip


_LARGEST = 2**24


@contextmanager
def trusting(names: Iterable[str]) -> Iterator[None]:
    """Let every bundle that is rebuilt inside name these packages, modules and classes, too."""
    token = _granted.set((*_granted.get(), *names))
    try:
        yield
    finally:
        _granted.reset(token)


def rebuild(described: Any, trust: Iterable[str] | None = ()) -> Any:
    """Build the object that `recipe` described, from a source that need not be trusted.

    Only `Recorded` classes of this package, or of packages named in ``trust``, are built; nothing else is imported.

    Args:
        described: What `recipe` gave, as read from JSON; ``init_args`` may be left out where there are none.
        trust: Names of further packages or modules whose classes and factories may be used; None for any, where the
            user wrote the description.

    Raises:
        ValueError: If a class is not allowed, does not exist, or refuses its arguments.
    """
    token = _trust.set(None if trust is None else tuple(trust))
    try:
        return _rebuild(described)
    except RecursionError as error:
        raise ValueError("The description of an object is nested too deeply to be built.") from error
    finally:
        _trust.reset(token)


def _rebuild(node: Any) -> Any:
    if isinstance(node, list):
        return [_rebuild(item) for item in node]
    if not isinstance(node, dict):
        return node
    if node.keys() - {"init_args"} != {"class_path"}:
        return {key: _rebuild(item) for key, item in node.items()}
    given = node.get("init_args", {})
    if not isinstance(given, dict):
        raise ValueError(f"Expected init_args of '{node['class_path']}' to be a mapping, got {given!r}.")
    cls = _load(str(node["class_path"]), ("lit_backdoor",))
    if not (isinstance(cls, type) and issubclass(cls, Recorded)):
        raise ValueError(f"Expected the name of a class that can be recorded; '{node['class_path']}' is none.")
    if _trust.get() is not None:
        _refuse_huge(node["class_path"], given)
    try:
        return cls(**{key: _rebuild(item) for key, item in given.items()})
    except RecursionError:
        raise
    except _REFUSALS as error:
        raise ValueError(f"'{node['class_path']}' could not be built with its recorded arguments: {error}") from error


def _refuse_huge(name: Any, given: dict[str, Any]) -> None:
    """Refuse numbers that no net has, such as a depth that would be counted up to for hours; seeds may be large."""
    for key, value in given.items():
        numbers = value if isinstance(value, list) else value.values() if isinstance(value, dict) else [value]
        if key != "seed" and any(isinstance(n, int) and abs(n) > _LARGEST for n in numbers):
            raise ValueError(f"'{name}' could not be built: expected whole numbers up to {_LARGEST:,} in '{key}'.")


def load_factory(name: str) -> Callable[..., Any]:
    """Find a function or class that makes a net, by its dotted name.

    While a bundle is rebuilt, only torchvision's and timm's builders of classifiers and what the user trusts are
    allowed: a prefix alone would admit functions that download or run, and builders of detectors download backbones.

    Raises:
        ValueError: If the name does not exist or is not allowed.
    """
    if _trust.get() is not None and name.startswith("torchvision.models."):
        from torchvision import models

        builder = name.removeprefix("torchvision.models.").rpartition(".")[2]
        if builder not in models.list_models(module=models):  # neither detection nor segmentation, quantized or video
            raise ValueError(f"'{name}' builds no classifier of torchvision. Only those are built for a bundle.")
        return cast("Callable[..., Any]", models.get_model_builder(builder))
    if _trust.get() is not None and name.startswith("timm.models."):
        import timm

        if not timm.is_model(model := name.removeprefix("timm.models.")):
            raise ValueError(f"'{name}' builds no net of timm. Only those are built for a bundle.")
        return timm.model_entrypoint(model)
    found = _load(name, ())
    if not callable(found):
        raise ValueError(f"Expected '{name}' to be a function or class that makes a net, got {type(found).__name__}.")
    return cast("Callable[..., Any]", found)


def rebuilding() -> bool:
    """Say whether a bundle is being rebuilt, so that nothing may be downloaded."""
    return _trust.get() is not None


def _load(name: str, always: tuple[str, ...]) -> Any:
    module_name, _, attribute = name.rpartition(".")
    trust = _trust.get()
    if trust is not None and not any(name == p or name.startswith(f"{p}.") for p in (*always, *trust, *_granted.get())):
        raise ValueError(
            f"The bundle names '{name}', which is not on the allow-list. If you trust it, name its package with trust= "
            "or --trust."
        )
    try:
        module = importlib.import_module(module_name)
    except (ImportError, ValueError) as error:
        raise ValueError(f"Expected a dotted name such as 'package.module.Class', got '{name}': {error}") from error
    if not hasattr(module, attribute):
        raise unknown(f"name in {module_name}", attribute, (known for known in dir(module) if known[0] != "_"))
    return getattr(module, attribute)


def arguments_of(cls: Any) -> set[str]:
    """Names of what a class or a function takes; ``**kwargs`` are those of the next class."""
    found: set[str] = set()
    # Only constructors of a class's own: one that a mixin inherits would end the search before the next base.
    owners = [vars(owner).get("__init__") for owner in cls.__mro__] if isinstance(cls, type) else [cls]
    for owner in filter(None, owners):
        parameters = inspect.signature(owner).parameters.values()
        found.update(p.name for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD))
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            break
    return found - {"self"}
