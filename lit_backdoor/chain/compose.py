"""Reading of chain files: inheritance, ``--set``, attack names, and the check of every name before anything starts."""

from __future__ import annotations

import copy
import importlib
import inspect
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, get_args, get_type_hints

import yaml

from lit_backdoor.errors import unknown
from lit_backdoor.presets import find_config, read_config
from lit_backdoor.recipe import arguments_of

__all__ = ["check_names", "compose", "expand_attack", "load_class", "merge", "set_value", "stage_config", "variant_of"]

FORMAT = 1
_TOP = {"format", "base", "set", "sweep", "seed", "data", "trainer", "stages", "summary", "description"}
_STAGE = {"run", "model", "data", "trainer", "inputs"}
_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
_ATTACK = "data.init_args.attack"


def compose(name: str, settings: Iterable[str] = (), seed: int | None = None) -> dict[str, Any]:
    """Read a chain by name or file, apply its base, its own ``set`` and the command line's.

    Args:
        name: A shipped chain or a YAML file.
        settings: ``a.b.c=value`` texts; values are YAML.
        seed: Replaces the chain's seed.

    Returns:
        The chain, with the attack expanded.

    Raises:
        ValueError: If the file is no chain, or a name in it is not known.
    """
    chain = _read(find_config("chains", name))
    pairs = []
    for text in settings:
        key, sign, value = text.partition("=")
        if not sign:
            raise ValueError(f"Expected --set a.b.c=value, got '{text}'.")
        pairs.append((key, _parse(value, text)))
    for key, value in sorted(pairs, key=lambda pair: pair[0].count(".")):  # parents first, so order does not matter
        set_value(chain, key, value)
    chain = _without_null(_with_sections(chain, "the chain with its settings"))
    if seed is not None:
        chain["seed"] = seed
    expand_attack(chain["data"]["init_args"])
    check_names(chain)
    return chain


def _read(path: Path, above: tuple[Path, ...] = ()) -> dict[str, Any]:
    chain: dict[str, Any] = read_config("chains", path)
    if not isinstance(chain, dict) or chain.get("format") != FORMAT:
        raise ValueError(f"Expected a chain file with 'format: {FORMAT}' at {path}. See configs/chains for examples.")
    _known("key of a chain", chain, _TOP)
    settings = dict(_section(chain, "set"))
    chain.pop("set", None)
    if "base" in chain:
        base, files = _beside(path, chain.pop("base")), (*above, path.resolve())
        if base.resolve() in files:
            raise ValueError(f"Expected the base of the chain file {path} to be another one, but it leads back to it.")
        chain = merge(_read(base, files), chain)
    for key, value in sorted(settings.items(), key=lambda item: str(item[0]).count(".")):
        set_value(chain, str(key), value)
    chain = _without_null(_with_sections(chain, f"the chain file {path}"))
    chain.setdefault("seed", 0)
    return chain


def _with_sections(chain: dict[str, Any], what: str) -> dict[str, Any]:
    """Check that a chain has data, and stages whose names are folders; give it a place for the data's arguments."""
    for needed in ("data", "stages"):
        if not isinstance(chain.get(needed), dict):
            raise ValueError(f"Expected {what} to have a section '{needed}', got {chain.get(needed)!r}.")
    chain["data"]["init_args"] = dict(_section(chain["data"], "init_args"))
    for name in chain["stages"]:
        if not isinstance(name, str) or not _PLAIN.fullmatch(name):
            raise ValueError(
                f"Expected names of stages of letters, digits, - and _ only, since they name folders, got {name!r}."
            )
    return chain


def _without_null(chain: dict[str, Any]) -> dict[str, Any]:
    """Drop stages and inputs that a variant sets to null: that is how it takes them out of its base."""
    stages = {name: stage for name, stage in (chain.get("stages") or {}).items() if stage is not None}
    for stage in stages.values():
        if isinstance(stage, dict) and _section(stage, "inputs"):
            stage["inputs"] = {name: source for name, source in stage["inputs"].items() if source is not None}
    return {**chain, "stages": stages} if stages else chain


def _beside(path: Path, base: Any) -> Path:
    if not isinstance(base, str):
        raise ValueError(f"Expected the base of the chain file {path} to be a name or a file, got {base!r}.")
    neighbor = path.parent / base
    return neighbor if base.endswith((".yaml", ".yml")) and neighbor.is_file() else find_config("chains", base)


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Lay one mapping over another; where a ``class_path`` changes, the old ``init_args`` go."""
    merged = copy.deepcopy(dict(base))
    if "class_path" in over and over["class_path"] != merged.get("class_path"):
        merged.pop("init_args", None)
    for key, value in over.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = merge(merged[key], value) if both else copy.deepcopy(value)
    return merged


def set_value(chain: dict[str, Any], key: str, value: Any) -> None:
    """Set ``a.b.c`` to a value. Below an attack given by name, the name is expanded first.

    Raises:
        ValueError: If the path leads through something that is no mapping, or names an unknown stage.
    """
    *parents, last = key.split(".")
    node, path = chain, ""
    for name in parents:
        path = f"{path}.{name}" if path else name
        if path == _ATTACK:
            expand_attack(node)
        if path.startswith("stages.") and path.count(".") == 1 and name not in node:
            raise unknown("stage", name, node)
        child = node.get(name)
        if child is None:
            child = node[name] = {}
        if not isinstance(child, dict):
            raise ValueError(f"Cannot set '{key}': '{path}' is {child!r}, not a section.")
        node = child
    node[last] = value


def expand_attack(data: dict[str, Any]) -> None:
    """Replace an attack's name by what its file says."""
    attack = data.get("attack")
    if isinstance(attack, str):
        data["attack"] = read_config("attacks", find_config("attacks", attack))


def variant_of(chain: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Give a chain with other values, as a sweep has them.

    Raises:
        ValueError: If a key or a name is not known.
    """
    variant = copy.deepcopy(dict(chain))
    for key, value in settings.items():
        set_value(variant, key, value)
    variant = _without_null(_with_sections(variant, "a variant of the sweep"))
    expand_attack(variant["data"]["init_args"])
    check_names(variant)
    return variant


def _parse(value: str, text: str) -> Any:
    try:
        parsed = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise ValueError(f"The value of --set {text} is not YAML.") from error
    if isinstance(parsed, str):  # YAML 1.1 reads 1e-4 as a text
        try:
            return float(parsed)
        except ValueError:
            return parsed
    return parsed


def check_names(chain: Mapping[str, Any]) -> None:
    """Check every key, class and argument name of a chain; nothing is built.

    Raises:
        ValueError: At the first name that is not known; gives the nearest.
    """
    from lightning.pytorch import Trainer

    _known("key of a chain", chain, _TOP)
    seed = chain["seed"]
    if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < 2**32:
        raise ValueError(f"Expected the chain's seed to be a whole number from 0 to 2**32 - 1, got {seed!r}.")
    trainer_arguments = set(inspect.signature(Trainer.__init__).parameters) - {"self"}
    _known("Trainer argument", _section(chain, "trainer"), trainer_arguments)
    _check_named(chain["data"], "data")
    if "source" not in chain["data"]["init_args"]:
        raise ValueError("Expected the chain to name its images: data.init_args.source: {class_path: …}.")
    seen: list[str] = []
    for name in chain["stages"]:
        _known(f"key of stage '{name}'", _section(chain["stages"], name), _STAGE)
        _check_stage(chain, name, trainer_arguments, seen)
        seen.append(name)
    for role, name in _section(chain, "summary").items():
        _known("key of the summary", [role], {"before", "after"})
        if name is not None and name not in seen:
            raise unknown("stage", str(name), seen)


def _check_stage(chain: Mapping[str, Any], name: str, trainer_arguments: set[str], seen: list[str]) -> None:
    stage = chain["stages"][name]
    if stage.get("run", "fit") not in ("fit", "predict"):
        raise ValueError(f"Expected 'run' of stage '{name}' to be fit or predict, got {stage['run']!r}.")
    _check_named(stage.get("model"), f"stages.{name}.model")
    data = merge(chain["data"], _section(stage, "data"))
    _check_named(data, f"stages.{name}.data")
    _known("Trainer argument", _section(stage, "trainer"), trainer_arguments)
    for argument, source in _section(stage, "inputs").items():
        if source not in seen:
            raise unknown(f"earlier stage, for input '{argument}' of stage '{name}',", str(source), seen)
        part, _, parameter = str(argument).partition(".")
        _known(f"input of stage '{name}'", [part], ("model", "data"))
        target = stage["model"] if part == "model" else data
        _known(f"input of stage '{name}'", [parameter], arguments_of(load_class(target["class_path"])))


def _section(parent: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Give a part of a chain that may be missing or empty, but is nothing other than a mapping."""
    section = parent.get(name)
    if section is not None and not isinstance(section, Mapping):
        raise ValueError(f"Expected '{name}' in the chain to be a section of keys and values, got {section!r}.")
    return section or {}


def _check_named(node: Any, path: str) -> None:
    if not isinstance(node, Mapping) or "class_path" not in node:
        raise ValueError(f"Expected '{path}' to name its class: {{class_path: …}}, got {node!r}.")
    _check_classes(node, path)


def _check_classes(node: Any, path: str) -> None:
    if isinstance(node, Mapping):
        if "class_path" in node:
            cls = load_class(node["class_path"])
            arguments = arguments_of(cls)
            for key in _section(node, "init_args"):
                if key not in arguments:
                    raise unknown(f"argument of {cls.__name__} at '{path}'", str(key), arguments)
            _known(f"key beside class_path at '{path}'", node, {"class_path", "init_args"})
            _check_plain(cls, _section(node, "init_args"), path)
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
                _known(f"argument of {kinds[0].__name__} at '{path}.{name}'", value, arguments_of(kinds[0]))


def load_class(class_path: Any) -> Any:
    """Import the class that a ``class_path`` names.

    Raises:
        ValueError: If there is none; gives the nearest name.
    """
    module_name, _, name = str(class_path).rpartition(".")
    try:
        module = importlib.import_module(module_name)
    except (ImportError, ValueError) as error:
        raise ValueError(f"Cannot import the class '{class_path}': {error}. Expected package.module.Class.") from error
    if not hasattr(module, name):
        raise unknown(f"class in {module_name}", name, [n for n in dir(module) if n[:1].isupper()])
    return getattr(module, name)


def _known(what: str, given: Iterable[Any], names: Iterable[str]) -> None:
    allowed = set(names)
    for name in given:
        if name not in allowed:
            raise unknown(what, str(name), allowed)


def stage_config(chain: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Give the settings of one stage in the form that ``fit`` takes; its inputs are still missing."""
    stage = chain["stages"][name]
    return {
        "seed_everything": chain["seed"],
        "trainer": merge(chain.get("trainer") or {}, stage.get("trainer") or {}),
        "model": copy.deepcopy(stage["model"]),
        "data": merge(
            {**chain["data"], "init_args": {**chain["data"]["init_args"], "seed": chain["seed"]}},
            stage.get("data") or {},
        ),
    }
