"""Composition of chains without importing torch: files, ``--set``, the order of stages."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from lit_backdoor.chain.layers import FORMAT, lay_out
from lit_backdoor.chain.names import check_keys, copied, merge, section
from lit_backdoor.chain.sections import expand_attack, rename_attack, set_value
from lit_backdoor.disk import check_name
from lit_backdoor.presets import read_yaml

__all__ = ["compose", "stage_config", "variant_of"]


def compose(
    name: str,
    settings: Iterable[str] = (),
    seed: int | None = None,
    *,
    setup: str | None = None,
    attack: str | None = None,
) -> dict[str, Any]:
    """Compose a chain of a setup, an attack and a defense, or read a file that is a whole chain.

    Torch is not imported: keys, classes and arguments are checked by `lit_backdoor.chain.fill.fill_in`.

    Args:
        name: A shipped defense or chain, or a YAML file.
        settings: ``a.b.c=value`` texts; values are YAML.
        seed: Replaces the chain's seed.
        setup: A shipped setup or a file; None for the chain's own, else ``signs``.
        attack: A shipped attack or a file, ``null`` for a clean model; None for the chain's or the setup's own, else
            ``badnets``.

    Returns:
        The chain, with the attack expanded.

    Raises:
        ValueError: If a file is none of its kind, a name is not known, parts do not fit together, or a setting is one
            that an input replaces.
    """
    chain = {"format": FORMAT, **lay_out(name, setup, attack)}
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
    return _with_settings(copied(chain), list(settings.items()), "a variant of the sweep")


def _with_settings(chain: dict[str, Any], pairs: list[tuple[str, Any]], what: str) -> dict[str, Any]:
    """Set keys of a chain, expand its attack and put its stages in order."""
    for key, value in sorted(pairs, key=lambda pair: pair[0].count(".")):  # parents first, so order does not matter
        set_value(chain, key, value)
    chain = _settled(_with_sections(chain, what))
    expand_attack(chain)
    rename_attack(chain)
    chain.setdefault("seed", 0)
    check_keys(chain)
    _check_replaced(chain, pairs)
    return chain


def _check_replaced(chain: Mapping[str, Any], pairs: Iterable[tuple[str, Any]]) -> None:
    """Refuse a value that was set and would have no effect, since another stage's bundle takes its place.

    A file may set such a value, so that a variant can wire an input in its place.
    """
    wired = ((name, *item) for name, stage in chain["stages"].items() for item in section(stage, "inputs").items())
    for name, argument, source in wired:
        part, _, parameter = argument.partition(".")
        place = f"{part}.init_args.{parameter}"
        for key, value in pairs:
            shared = argument != "data.attack" and _reaches(key, value, place)  # the attack is that stage's as well
            if shared or _reaches(key, value, f"stages.{name}.{place}"):
                raise ValueError(
                    f"Expected no value for {place} of stage '{name}', got {key}={value!r}: the bundle of stage "
                    f"'{source}' would replace it. To use the value add "
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


def _parse(value: str, text: str) -> Any:
    try:
        return read_yaml(value)
    except ValueError as error:
        raise ValueError(f"The value of --set {text} is not YAML: {error}") from error


def stage_config(chain: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Give the settings of one stage in the form that ``fit`` takes; its inputs are still missing.

    A stage that has a seed of its own, since it depends on no suspect, is the same one for every seed of the chain.
    """
    stage = chain["stages"][name]
    seed = stage.get("seed", chain["seed"])
    return {
        "seed_everything": seed,
        "trainer": merge(chain.get("trainer") or {}, stage.get("trainer") or {}),
        "model": copied(stage["model"]),
        "data": merge(
            {**chain["data"], "init_args": {**chain["data"]["init_args"], "seed": seed}},
            stage.get("data") or {},
        ),
    }
