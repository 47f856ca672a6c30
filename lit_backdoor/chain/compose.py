"""Reading of chain files: inheritance, ``--set``, attack names, the order of stages."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lit_backdoor.chain.names import TOP, check_names, known, merge, section
from lit_backdoor.disk import check_name
from lit_backdoor.errors import unknown
from lit_backdoor.presets import find_config, read_config, read_yaml

__all__ = ["compose", "expand_attack", "set_value", "stage_config", "variant_of"]

FORMAT = 1
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
        ValueError: If the file is no chain, a name in it is not known, or a setting is one that an input replaces.
    """
    chain = _read(find_config("chains", name))
    pairs = []
    for text in settings:
        key, sign, value = text.partition("=")
        if not sign:
            raise ValueError(f"Expected --set a.b.c=value, got '{text}'.")
        pairs.append((key, _parse(value, text)))
    if seed is not None:
        pairs.append(("seed", seed))
    return _with_settings(chain, pairs, "the chain with its settings")


def variant_of(chain: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Give a chain with other values, as a sweep has them.

    Raises:
        ValueError: If a key or a name is not known, or a value is one that an input replaces.
    """
    return _with_settings(copy.deepcopy(dict(chain)), list(settings.items()), "a variant of the sweep")


def _with_settings(chain: dict[str, Any], pairs: list[tuple[str, Any]], what: str) -> dict[str, Any]:
    """Set keys of a chain, expand its attack and check every name in it."""
    for key, value in sorted(pairs, key=lambda pair: pair[0].count(".")):  # parents first, so order does not matter
        set_value(chain, key, value)
    chain = _settled(_with_sections(chain, what))
    expand_attack(chain["data"]["init_args"])
    check_names(chain)
    _check_replaced(chain, pairs)
    return chain


def _check_replaced(chain: Mapping[str, Any], pairs: Iterable[tuple[str, Any]]) -> None:
    """Refuse a value that was set and would count for nothing, since the stage gets another one's bundle there.

    A value in a file may stand there, so that a variant can wire an input into it.
    """
    wired = ((name, *item) for name, stage in chain["stages"].items() for item in section(stage, "inputs").items())
    for name, argument, source in wired:
        part, _, parameter = argument.partition(".")
        place = f"{part}.init_args.{parameter}"
        for key, value in pairs:
            if _reaches(key, value, place) or _reaches(key, value, f"stages.{name}.{place}"):
                raise ValueError(
                    f"Expected no value for {place} of stage '{name}', got {key}={value!r}: the bundle of stage "
                    f"'{source}' would replace it. To let the value count add "
                    f"--set stages.{name}.inputs.{argument}=null."
                )


def _reaches(key: str, value: Any, place: str) -> bool:
    """Say whether setting a key sets a place in the chain, or a part of it."""
    if f"{key}.".startswith(f"{place}."):
        return True
    if not place.startswith(f"{key}."):
        return False
    for name in place.removeprefix(f"{key}.").split("."):
        if not isinstance(value, Mapping) or name not in value:
            return False
        value = value[name]
    return True


def _read(path: Path, above: tuple[Path, ...] = ()) -> dict[str, Any]:
    chain: dict[str, Any] = read_config("chains", path)
    if not isinstance(chain, dict) or chain.get("format") != FORMAT:
        raise ValueError(f"Expected a chain file with 'format: {FORMAT}' at {path}. See configs/chains for examples.")
    known("key of a chain", chain, TOP)
    settings = dict(section(chain, "set"))
    chain.pop("set", None)
    if "base" in chain:
        base, files = _beside(path, chain.pop("base")), (*above, path.resolve())
        if base.resolve() in files:
            raise ValueError(f"Expected the base of the chain file {path} to be another one, but it leads back to it.")
        chain = merge(_read(base, files), chain)
    for key, value in sorted(settings.items(), key=lambda item: str(item[0]).count(".")):
        set_value(chain, str(key), value)
    chain = _settled(_with_sections(chain, f"the chain file {path}"))
    chain.setdefault("seed", 0)
    return chain


def _with_sections(chain: dict[str, Any], what: str) -> dict[str, Any]:
    """Check that a chain has data, and stages whose names are folders; give it a place for the data's arguments."""
    for needed in ("data", "stages"):
        if not isinstance(chain.get(needed), dict):
            raise ValueError(f"Expected {what} to have a section '{needed}', got {chain.get(needed)!r}.")
    chain["data"]["init_args"] = dict(section(chain["data"], "init_args"))
    for name in chain["stages"]:
        check_name("names of stages", name)
    return chain


def _settled(chain: dict[str, Any]) -> dict[str, Any]:
    """Drop stages and inputs that a variant sets to null, and put each stage behind those that it takes from."""
    stages = {name: stage for name, stage in (chain.get("stages") or {}).items() if stage is not None}
    for stage in stages.values():
        if isinstance(stage, dict) and section(stage, "inputs"):
            stage["inputs"] = {k: source for k, source in _joined(stage["inputs"]).items() if source is not None}
    return {**chain, "stages": _ordered(stages)} if stages else chain


def _joined(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Write ``{model: {target: STAGE}}``, which ``--set`` makes of dots, as ``{model.target: STAGE}``."""
    flat: dict[str, Any] = {}
    for part, value in inputs.items():
        if isinstance(value, dict):
            flat |= {f"{part}.{name}": source for name, source in value.items()}
        else:
            flat[part] = value
    return flat


def _ordered(stages: dict[str, Any]) -> dict[str, Any]:
    """Keep the file's order, but put the stages that one takes from before it.

    Raises:
        ValueError: If stages wait for each other.
    """
    ordered: dict[str, Any] = {}

    def place(name: str, waiting: tuple[str, ...]) -> None:
        stage = stages[name]
        inputs = stage.get("inputs") if isinstance(stage, dict) else None
        for source in map(str, (inputs or {}).values()):
            if source in waiting:
                raise ValueError(f"Expected inputs from other stages, but '{name}' and '{source}' wait for each other.")
            if source in stages and source not in ordered:
                place(source, (*waiting, source))
        ordered[name] = stage

    for name in stages:
        if name not in ordered:
            place(name, (name,))
    return ordered


def _beside(path: Path, base: Any) -> Path:
    if not isinstance(base, str):
        raise ValueError(f"Expected the base of the chain file {path} to be a name or a file, got {base!r}.")
    neighbor = path.parent / base
    if base.endswith((".yaml", ".yml")) and neighbor.is_file():
        return neighbor
    return find_config("chains", base.removesuffix(".yaml") if Path(base).name == base else base)


def set_value(chain: dict[str, Any], key: str, value: Any) -> None:
    """Set ``a.b.c`` to a value. Below an attack given by name, the name is expanded first.

    Raises:
        ValueError: If the path leads through something that is no mapping, names an unknown stage, or a key that counts
            only while the file is read.
    """
    *parents, last = key.split(".")
    if (first := key.partition(".")[0]) in ("base", "format", "set"):
        raise ValueError(f"Cannot set '{key}': '{first}' counts in a chain file alone. Write one that has it.")
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


def _parse(value: str, text: str) -> Any:
    try:
        parsed = read_yaml(value)
    except ValueError as error:
        raise ValueError(f"The value of --set {text} is not YAML: {error}") from error
    if isinstance(parsed, str):  # YAML 1.1 reads 1e-4 as a text
        try:
            return float(parsed)
        except ValueError:
            return parsed
    return parsed


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
