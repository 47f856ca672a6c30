"""The check of every class in a chain before anything starts: its name, its arguments, what it takes and needs."""

from __future__ import annotations

import importlib
import inspect
import traceback
from collections.abc import Iterator, Mapping
from typing import Any, get_args, get_type_hints

from lit_backdoor.chain.names import known, merge, section
from lit_backdoor.errors import first_lines, unknown
from lit_backdoor.recipe import arguments_of

__all__ = ["check_classes", "kind_of", "load_class", "plain_kind", "trusted"]

_LIBRARIES = ("lit_backdoor", "torch", "torchvision", "lightning")
_QUESTIONED = {
    "train",
    "questioned",
    "suspicious",
    "attacker",
}  # views that need the questioned set


def check_classes(chain: Mapping[str, Any]) -> None:
    """Check the classes of a chain, their arguments, and that each stage gets what it needs; nothing is built.

    Raises:
        ValueError: At the first name that is not known (gives the nearest), or the first need that is not met.
    """
    from lightning.pytorch import Trainer

    trainer_arguments = set(inspect.signature(Trainer.__init__).parameters) - {"self"}
    known("Trainer argument", section(chain, "trainer"), trainer_arguments)
    _check_node(chain["data"], "data")
    for name, stage in chain["stages"].items():
        known("Trainer argument", section(stage, "trainer"), trainer_arguments)
        _check_stage(chain, name, stage)
    for role, name in section(chain, "summary").items():
        if name is not None and (kind := kind_of(chain["stages"][name])) not in ("suspect", None):
            raise ValueError(
                f"Expected summary.{role} to name a stage that produces a suspect; '{name}' produces a {kind}."
            )


def _check_stage(chain: Mapping[str, Any], name: str, stage: Mapping[str, Any]) -> None:
    _check_node(stage["model"], f"stages.{name}.model")
    data = merge(chain["data"], section(stage, "data"))
    _check_node(data, f"stages.{name}.data")
    for argument, source in section(stage, "inputs").items():
        part, _, parameter = str(argument).partition(".")
        cls = load_class((stage["model"] if part == "model" else data)["class_path"])
        known(f"input of stage '{name}'", [parameter], arguments_of(cls))
        _check_kind(name, str(argument), getattr(cls, "takes", {}).get(parameter), chain["stages"][source], source)
    cls = load_class(stage["model"]["class_path"])
    _check_target(name, cls, stage)
    if chain.get("questioned") is False and name != "victim" and (seen := _QUESTIONED & set(getattr(cls, "views", ()))):
        raise ValueError(
            f"Stage '{name}' ({cls.__name__}) needs the questioned set (view '{sorted(seen)[0]}'), which the setup "
            f"'{chain.get('setup')}' does not have. Take a defense that needs only root data, or a setup with it."
        )


def _check_target(name: str, cls: Any, stage: Mapping[str, Any]) -> None:
    """Check that a stage that needs the target class is given one."""
    needed = inspect.signature(cls).parameters.get("target")
    given = section(stage["model"], "init_args").get("target") is not None
    if needed is None or needed.default is not needed.empty or given or "model.target" in section(stage, "inputs"):
        return
    raise ValueError(
        f"Stage '{name}' ({cls.__name__}) needs the target class. If you know it: --set "
        f"stages.{name}.model.init_args.target=0. If a detector is to find it, add its stage and: --set "
        f"stages.{name}.inputs.model.target=STAGE."
    )


def _check_kind(name: str, argument: str, kinds: tuple[str, ...] | None, source: Mapping[str, Any], given: str) -> None:
    """Check that the bundle of an earlier stage is of a kind that the argument takes, where that is known."""
    left = kind_of(source)
    if kinds is not None and left is not None and left not in kinds:
        raise ValueError(
            f"Expected input '{argument}' of stage '{name}' to be a stage that produces a bundle of kind "
            f"{' or '.join(map(repr, kinds))}, but '{given}' produces one of kind '{left}'."
        )


def kind_of(stage: Mapping[str, Any]) -> str | None:
    """Give the kind of bundle that a stage produces; None where its class does not say."""
    return getattr(load_class(stage["model"]["class_path"]), "kind", None)


def _check_node(node: Any, path: str) -> None:
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
            _check_node(value, f"{path}.{key}")
    elif isinstance(node, list):
        for number, value in enumerate(node):
            _check_node(value, f"{path}[{number}]")


def _check_plain(cls: Any, given: Mapping[str, Any], path: str) -> None:
    """Check the arguments of objects that are given without their class, which the annotation says."""
    for name, value in given.items():
        if isinstance(value, Mapping) and "class_path" not in value and (kind := plain_kind(cls, name)):
            known(f"argument of {kind.__name__} at '{path}.{name}'", value, arguments_of(kind))


def plain_kind(cls: Any, name: str) -> type | None:
    """Give the class of an argument whose annotation says it, so that only its own arguments need to be given."""
    owners = [owner for owner in cls.__mro__ if "__init__" in vars(owner)] if isinstance(cls, type) else []
    hints = (get_type_hints(vars(owner)["__init__"]) for owner in owners)  # what goes on to a base is annotated there
    hint = next((found[name] for found in hints if name in found), None)
    kinds = [kind for kind in get_args(hint) or (hint,) if kind is not type(None)]
    return kinds[0] if len(kinds) == 1 and isinstance(kinds[0], type) and kinds[0] is not dict else None


def load_class(class_path: Any) -> Any:
    """Import the class that a ``class_path`` names.

    Raises:
        ValueError: If there is none (gives the nearest name), its module fails (says where), or it is no class.
    """
    module_name, _, name = str(class_path).rpartition(".")
    try:
        module = importlib.import_module(module_name)
    except (ImportError, ValueError) as error:
        raise ValueError(
            f"Cannot import the class '{class_path}': {error}. Expected package.module.Class; a module of "
            "your own lies in the current folder or is installed."
        ) from error
    except (Exception, SystemExit) as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        where = "" if isinstance(error, SyntaxError) else f" in {place.filename}, line {place.lineno}"
        raise ValueError(
            f"Cannot import the class '{class_path}', whose module fails: {type(error).__name__}{where}: "
            f"{first_lines(str(error), 1)}"
        ) from error
    if not hasattr(module, name):
        raise unknown(f"class in {module_name}", name, [n for n in dir(module) if n[:1].isupper()])
    if not callable(found := getattr(module, name)):
        raise ValueError(f"Expected the name of a class, got '{class_path}', which is a {type(found).__name__}.")
    return found


def trusted(chain: Mapping[str, Any]) -> tuple[str, ...]:
    """Name what a chain trusts: its ``trust``, and every class and function outside the libraries that it names.

    The user wrote those names, in a file of their own or on the command line; shipped files name only the libraries'.
    """
    names = list(chain.get("trust") or ())
    for path in _named({key: chain[key] for key in ("data", "stages")}):
        if path.partition(".")[0] not in _LIBRARIES:
            found = load_class(path)
            names += [path, f"{found.__module__}.{getattr(found, '__qualname__', '')}"]
    return tuple(dict.fromkeys(names))


def _named(node: Any) -> Iterator[str]:
    if isinstance(node, Mapping):
        yield from (str(node[key]) for key in ("class_path", "factory") if isinstance(node.get(key), str))
        node = list(node.values())
    for item in node if isinstance(node, list) else ():
        yield from _named(item)
