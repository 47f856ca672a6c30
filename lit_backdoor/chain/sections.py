"""Changes of a chain that is being composed: a key set, an attack named."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lit_backdoor.chain.names import known, merge, section
from lit_backdoor.errors import unknown
from lit_backdoor.presets import find_config, read_config

__all__ = ["expand_attack", "replace_lengths", "set_attack", "set_value"]

_ATTACK = "data.init_args.attack"


def set_value(chain: dict[str, Any], key: str, value: Any) -> None:
    """Set ``a.b.c`` to a value. Below an attack given by name, the name is expanded first.

    Raises:
        ValueError: If the path leads through something that is no mapping, names an unknown stage, or a key that counts
            only while the file is read.
    """
    *parents, last = key.split(".")
    if (first := key.partition(".")[0]) in ("base", "format", "set", "setup", "attack"):
        raise ValueError(
            f"Cannot set '{key}': '{first}' counts only in a chain file. {_INSTEAD.get(first, '')}".strip()
        )
    if first == "stages" and (parents[2:], last) in ((["trainer"], "max_epochs"), ([], "steps")) and value is not None:
        chain["stages"] = replace_lengths(chain, {parents[1]: {"steps": 1} if last == "steps" else _EPOCHS})["stages"]
    node, path = chain, ""
    for name in parents:
        path = f"{path}.{name}" if path else name
        if path == _ATTACK:
            expand_attack(chain)
        if path.startswith("stages.") and path.count(".") == 1 and name not in node:
            raise unknown("stage", name, node)
        child = node.get(name)
        if child is None:
            child = node[name] = {}
        if not isinstance(child, dict):
            raise ValueError(f"Cannot set '{key}': '{path}' is {child!r}, not a section.")
        node = child
    node[last] = value


_INSTEAD = {
    "setup": "Give --setup NAME.",
    "attack": f"Give --attack NAME, or set {_ATTACK}.",
    **dict.fromkeys(("base", "format", "set"), "Write one that has it."),
}


_EPOCHS = {"trainer": {"max_epochs": 1}}


def replace_lengths(chain: Mapping[str, Any], stages: Mapping[str, Any]) -> dict[str, Any]:
    """Take the lengths out of a chain's stages that are given anew, in steps or in epochs: the last one said holds."""
    kept = dict(section(chain, "stages"))
    for name, over in stages.items():
        stage = kept.get(name)
        if not isinstance(stage, Mapping) or not isinstance(over, Mapping):
            continue
        if "max_epochs" in section(over, "trainer"):
            stage = {key: value for key, value in stage.items() if key not in ("steps", "passes")}
        if over.get("steps") is not None and "max_epochs" in section(stage, "trainer"):
            trainer = {key: value for key, value in stage["trainer"].items() if key != "max_epochs"}
            stage = {**stage, "trainer": trainer}
        kept[name] = stage
    return {**chain, "stages": kept} if kept else dict(chain)


def set_attack(chain: dict[str, Any], name: Any) -> None:
    """Let a chain have the attack of a name or a file, or none: ``null``."""
    arguments = dict(section(chain.get("data") or {}, "init_args"))
    chain["data"] = {**(chain.get("data") or {}), "init_args": arguments}
    arguments["attack"] = None if name in (None, "null") else name
    chain["attack"] = None
    expand_attack(chain)


def expand_attack(chain: dict[str, Any]) -> None:
    """Replace an attack's name by what its file says, and the victim's training where the attack has its own.

    Raises:
        ValueError: If there is no such attack, or it needs a training that the chain's victim cannot have.
    """
    arguments = chain["data"]["init_args"]
    name = arguments.get("attack")
    if not isinstance(name, str):
        return
    path = find_config("attacks", name)
    attack = read_config("attacks", path)
    chain["attack"] = path.stem
    if isinstance(attack, dict) and "class_path" not in attack:
        known(f"key of the attack {path}", attack, ("attack", "victim"))
        _train(chain, section(attack, "victim"), path)
        attack = attack.get("attack")
    arguments["attack"] = attack


def _train(chain: dict[str, Any], own: Any, path: Path) -> None:
    """Let the victim be trained by the attack's stage, which keeps what the setup gives to the one before."""
    if "class_path" not in own:
        raise ValueError(f"Expected the attack {path} to name the stage of its victim: victim: {{class_path: …}}.")
    victim = section(chain.get("stages") or {}, "victim")
    if not victim or victim.get("run", "fit") != "fit":
        raise ValueError(
            f"Expected a victim that can be trained, since the attack '{path.stem}' trains its own, but "
            f"{'that of ' + repr(chain['setup']) if chain.get('setup') else 'the one of this chain'} is fixed. Take an "
            "attack that only changes data, or another setup."
        )
    model = section(victim, "model")
    kept = merge(section(victim, "defaults"), section(model, "init_args"))
    chain["stages"]["victim"] = {**victim, "model": dict(own), "defaults": kept}
