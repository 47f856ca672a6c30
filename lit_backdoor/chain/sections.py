"""Changes of a chain that is being composed: a key set, an attack named."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lit_backdoor.chain.names import copied, known, merge, section
from lit_backdoor.errors import unknown
from lit_backdoor.presets import find_config, list_configs, read_config

__all__ = ["expand_attack", "rename_attack", "replace_lengths", "set_attack", "set_value"]

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
    """Replace an attack's name by what its file says: its victim's training and the stages before it, if it has any.

    Raises:
        ValueError: If there is no such attack, or it needs a training that the chain's victim cannot have.
    """
    arguments = chain["data"]["init_args"]
    name = arguments.get("attack")
    if not isinstance(name, str):
        return
    if (Path(name) / "bundle.json").is_file():
        raise ValueError(
            f"Expected the name of an attack or a YAML file, got the bundle {name}: a chain plants its attack itself. "
            "To start from a suspect that has one take a setup whose victim is lit_backdoor.stages.GivenSuspect."
        )
    path = find_config("attacks", name)
    attack = read_config("attacks", path)
    chain["attack"] = path.stem
    if isinstance(attack, dict) and "class_path" not in attack:
        known(f"key of the attack {path}", attack, ("attack", "stages", "victim"))
        _check_trainable(chain, path)
        before = {stage: _like(chain, said, path) for stage, said in section(attack, "stages").items()}
        own = section(attack, "victim")
        if "victim" in attack:
            _train(chain, own, path)
        _put_before(chain, before, path, wired="inputs" in own)
        attack = attack.get("attack")
    arguments["attack"] = attack


def rename_attack(chain: dict[str, Any]) -> None:
    """Call a shipped attack by its trigger's class if the chain gives it another trigger, and none by no name."""
    planted, name = chain["data"]["init_args"].get("attack"), chain.get("attack")
    if planted is None:
        chain["attack"] = None
    elif name in list_configs("attacks"):
        shipped = read_config("attacks", find_config("attacks", name))
        found = _trigger_of(planted)
        if found not in (None, _trigger_of(shipped if "class_path" in shipped else shipped.get("attack"))):
            chain["attack"] = found.rpartition(".")[2]


def _trigger_of(attack: Any) -> str | None:
    """Name the class of the trigger that an attack describes."""
    trigger = section(attack, "init_args").get("trigger") if isinstance(attack, Mapping) else None
    return str(trigger.get("class_path")) if isinstance(trigger, Mapping) else None


def _check_trainable(chain: Mapping[str, Any], path: Path) -> None:
    """Check that a chain trains its victim, so that an attack may have a say in it."""
    victim = section(chain.get("stages") or {}, "victim")
    if not victim or victim.get("run", "fit") != "fit":
        raise ValueError(
            f"Expected a victim that can be trained, since the attack '{path.stem}' trains its own, but "
            f"{'that of ' + repr(chain['setup']) if chain.get('setup') else 'the one of this chain'} is fixed. Take an "
            "attack that only changes data, or another setup."
        )


def _train(chain: dict[str, Any], own: Mapping[str, Any], path: Path) -> None:
    """Let the victim be trained by the attack's stage, which keeps what the setup gives to the one before.

    A stage that is described as a whole, since it tunes a net that another stage trained, keeps only the data.
    """
    victim = section(chain["stages"], "victim")
    if "class_path" in own:
        chain["stages"]["victim"] = _another(victim, own)
    elif "class_path" in section(own, "model"):
        chain["stages"]["victim"] = {**{key: victim[key] for key in ("data",) if key in victim}, **copied(own)}
    else:
        raise ValueError(
            f"Expected the attack {path} to name the stage of its victim: victim: {{class_path: …}}, or victim: "
            "{model: {class_path: …}, steps: …} for one that is not trained as the setup's is."
        )


def _another(victim: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Give a victim that is trained by another stage; what the setup says is kept as far as that stage takes it."""
    kept = merge(section(victim, "defaults"), section(section(victim, "model"), "init_args"))
    return {**victim, "model": dict(own), "defaults": kept}


def _like(chain: Mapping[str, Any], said: Any, path: Path) -> dict[str, Any]:
    """Give a stage of an attack; one that is ``like: victim`` is the setup's victim but for what is said."""
    stage = dict(said) if isinstance(said, Mapping) else {}
    like, own = stage.pop("like", None), section(stage, "model")
    if not stage or like not in (None, "victim"):
        raise ValueError(
            f"Expected the attack {path} to describe each of its stages, or to say that one is like: victim, got "
            f"{said!r}."
        )
    if like is None:
        return copied(stage)  # type: ignore[no-any-return]
    victim = chain["stages"]["victim"]
    return merge(_another(victim, own) if "class_path" in own else victim, stage)


def _put_before(chain: dict[str, Any], stages: Mapping[str, Any], path: Path, wired: bool) -> None:
    """Run an attack's stages before the victim, whose data take the attack from the last one's bundle.

    A victim whose inputs the attack names (``wired``) takes those and nothing else.
    """
    if not stages:
        return
    if taken := set(stages) & set(chain["stages"]):
        raise ValueError(
            f"Expected stages of the attack {path} to have names of their own, but the chain has one called "
            f"'{sorted(taken)[0]}'. Rename it."
        )
    victim = chain["stages"]["victim"]
    inputs = {**section(victim, "inputs"), **({} if wired else {"data.attack": list(stages)[-1]})}
    chain["stages"] = {**stages, **chain["stages"], "victim": {**victim, "inputs": inputs}}
