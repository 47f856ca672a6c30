"""The check of every name in a chain before anything starts: keys, classes, arguments, stages."""

from __future__ import annotations

import copy
import importlib
import inspect
from collections.abc import Iterable, Mapping
from typing import Any, get_args, get_type_hints

from lit_backdoor.errors import unknown
from lit_backdoor.recipe import arguments_of

__all__ = ["TOP", "check_names", "known", "load_class", "merge", "section"]

TOP = {"format", "base", "set", "sweep", "seed", "data", "trainer", "stages", "summary", "description"}
_STAGE = {"run", "model", "data", "trainer", "inputs"}


def check_names(chain: Mapping[str, Any]) -> None:
    """Check every key, class and argument name of a chain; nothing is built.

    Raises:
        ValueError: At the first name that is not known; gives the nearest.
    """
    from lightning.pytorch import Trainer

    known("key of a chain", chain, TOP)
    seed = chain["seed"]
    if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < 2**32:
        raise ValueError(f"Expected the chain's seed to be a whole number from 0 to 2**32 - 1, got {seed!r}.")
    trainer_arguments = set(inspect.signature(Trainer.__init__).parameters) - {"self"}
    known("Trainer argument", section(chain, "trainer"), trainer_arguments)
    _check_named(chain["data"], "data")
    if "seed" in chain["data"]["init_args"]:
        raise ValueError("Expected no data.init_args.seed, which the chain's own seed would replace. Set 'seed'.")
    if "source" not in chain["data"]["init_args"]:
        raise ValueError("Expected the chain to name its images: data.init_args.source: {class_path: …}.")
    seen: list[str] = []
    for name in chain["stages"]:
        known(f"key of stage '{name}'", section(chain["stages"], name), _STAGE)
        _check_stage(chain, name, trainer_arguments, seen)
        seen.append(name)
    for role, name in section(chain, "summary").items():
        known("key of the summary", [role], {"before", "after"})
        if name is not None and name not in seen:
            raise unknown("stage", str(name), seen)
        if name is not None and (kind := _kind_left(chain["stages"][name])) not in ("suspect", None):
            raise ValueError(
                f"Expected summary.{role} to name a stage that leaves a suspect; '{name}' leaves a {kind}."
            )


def _check_stage(chain: Mapping[str, Any], name: str, trainer_arguments: set[str], seen: list[str]) -> None:
    stage = chain["stages"][name]
    if stage.get("run", "fit") not in ("fit", "predict"):
        raise ValueError(f"Expected 'run' of stage '{name}' to be fit or predict, got {stage['run']!r}.")
    _check_named(stage.get("model"), f"stages.{name}.model")
    data = merge(chain["data"], section(stage, "data"))
    _check_named(data, f"stages.{name}.data")
    known("Trainer argument", section(stage, "trainer"), trainer_arguments)
    for argument, source in section(stage, "inputs").items():
        if source not in seen:
            raise unknown(f"earlier stage, for input '{argument}' of stage '{name}',", str(source), seen)
        part, _, parameter = str(argument).partition(".")
        known(f"input of stage '{name}'", [part], ("model", "data"))
        target = stage["model"] if part == "model" else data
        cls = load_class(target["class_path"])
        known(f"input of stage '{name}'", [parameter], arguments_of(cls))
        _check_kind(name, str(argument), getattr(cls, "takes", {}).get(parameter), chain["stages"][source], source)


def _check_kind(name: str, argument: str, kinds: tuple[str, ...] | None, source: Mapping[str, Any], given: str) -> None:
    """Check that the bundle of an earlier stage is of a kind that the argument takes, where that is known."""
    left = _kind_left(source)
    if kinds is not None and left is not None and left not in kinds:
        raise ValueError(
            f"Expected input '{argument}' of stage '{name}' to be a stage that leaves a bundle of kind "
            f"{' or '.join(map(repr, kinds))}, but '{given}' leaves one of kind '{left}'."
        )


def _kind_left(stage: Mapping[str, Any]) -> str | None:
    """Give the kind of bundle that a stage leaves; None where its class does not say."""
    return getattr(load_class(stage["model"]["class_path"]), "kind", None)


def _check_named(node: Any, path: str) -> None:
    if not isinstance(node, Mapping) or "class_path" not in node:
        raise ValueError(f"Expected '{path}' to name its class: {{class_path: …}}, got {node!r}.")
    _check_classes(node, path)


def _check_classes(node: Any, path: str) -> None:
    if isinstance(node, Mapping):
        if "class_path" in node:
            cls = load_class(node["class_path"])
            arguments = arguments_of(cls)
            for key in section(node, "init_args"):
                if key not in arguments:
                    raise unknown(f"argument of {cls.__name__} at '{path}'", str(key), arguments)
            known(f"key beside class_path at '{path}'", node, {"class_path", "init_args"})
            _check_plain(cls, section(node, "init_args"), path)
        for key, value in node.items():
            _check_classes(value, f"{path}.{key}")
    elif isinstance(node, list):
        for number, value in enumerate(node):
            _check_classes(value, f"{path}[{number}]")


def _check_plain(cls: Any, given: Mapping[str, Any], path: str) -> None:
    """Check the arguments of objects that are given without their class, which the annotation says."""
    hints = get_type_hints(inspect.getattr_static(cls, "__init__")) if isinstance(cls, type) else {}
    for name, value in given.items():
        if isinstance(value, Mapping) and "class_path" not in value and name in hints:
            kinds = [kind for kind in get_args(hints[name]) or (hints[name],) if kind is not type(None)]
            if len(kinds) == 1 and isinstance(kinds[0], type) and kinds[0] is not dict:
                known(f"argument of {kinds[0].__name__} at '{path}.{name}'", value, arguments_of(kinds[0]))


def load_class(class_path: Any) -> Any:
    """Import the class that a ``class_path`` names.

    Raises:
        ValueError: If there is none; gives the nearest name.
    """
    module_name, _, name = str(class_path).rpartition(".")
    try:
        module = importlib.import_module(module_name)
    except (ImportError, ValueError) as error:
        raise ValueError(
            f"Cannot import the class '{class_path}': {error}. Expected package.module.Class; for a module of this "
            "folder start with PYTHONPATH=. lit-backdoor …"
        ) from error
    if not hasattr(module, name):
        raise unknown(f"class in {module_name}", name, [n for n in dir(module) if n[:1].isupper()])
    return getattr(module, name)


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Lay one mapping over another; where a ``class_path`` changes, the old ``init_args`` go."""
    merged = copy.deepcopy(dict(base))
    if "class_path" in over and over["class_path"] != merged.get("class_path"):
        merged.pop("init_args", None)
    for key, value in over.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = merge(merged[key], value) if both else copy.deepcopy(value)
    return merged


def section(parent: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Give a part of a chain that may be missing or empty, but is nothing other than a mapping."""
    found = parent.get(name)
    if found is not None and not isinstance(found, Mapping):
        raise ValueError(f"Expected '{name}' in the chain to be a section of keys and values, got {found!r}.")
    return found or {}


def known(what: str, given: Iterable[Any], names: Iterable[str]) -> None:
    """Refuse the first name that is not among the known ones; ``what`` says what the names stand for.

    Raises:
        ValueError: With the nearest known name.
    """
    allowed = set(names)
    for name in given:
        if name not in allowed:
            raise unknown(what, str(name), allowed)
