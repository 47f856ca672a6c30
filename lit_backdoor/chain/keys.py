"""Keys: a stage's key is the hash of all that determines its result."""

from __future__ import annotations

import ast
import copy
import hashlib
import json
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.util import find_spec, resolve_name
from pathlib import Path
from typing import Any

from lit_backdoor import __version__
from lit_backdoor.chain.compose import stage_config
from lit_backdoor.chain.cut import cut

__all__ = ["POISONED", "code_of", "sees_root", "source_hash", "stage_identities", "stage_key", "stage_kin"]

# What changes how a run looks or how fast it goes, never what comes out.
_TRAINER = {
    "logger", "default_root_dir", "enable_progress_bar", "enable_model_summary", "enable_checkpointing",
    "num_sanity_val_steps", "limit_val_batches", "limit_test_batches", "check_val_every_n_epoch", "val_check_interval",
    "log_every_n_steps", "profiler",
}  # fmt: skip
_DATA = {"eval_batch_size", "num_workers", "resident_bytes", "suspicious"}  # the selection counts as an input
POISONED = {"train", "questioned", "suspicious", "attacker"}  # views whose rows the attacker may have changed
_BLIND = {"train", "questioned", "attacker"}  # views of stages that see no root data


def sees_root(views: tuple[str, ...]) -> bool:
    """Say whether a stage may look at root data: it is trained on it, or on no view, as many detectors are."""
    return not views or not set(views) <= _BLIND


def stage_key(
    config: Mapping[str, Any],
    *,
    views: tuple[str, ...],
    verb: str,
    inputs: Mapping[str, str],
    fingerprint: str,
    trust_cache: bool = False,
) -> str:
    """Hash a stage's fully resolved settings and inputs.

    Args:
        config: The resolved configuration, defaults included.
        views: The parts of the data that the stage trains on.
        verb: ``fit`` or ``predict``.
        inputs: Hash of each input bundle, by argument name.
        fingerprint: The data source's.
        trust_cache: Leave the package's version and all source out, so that results of older code still count.

    Returns:
        32 hexadecimal digits.
    """
    config, inputs = copy.deepcopy(dict(config)), dict(inputs)
    data = {k: v for k, v in config["data"].get("init_args", {}).items() if k not in _DATA}
    if not POISONED & set(views) and "data.suspicious" not in inputs:
        data.pop("attack", None)  # a stage on clean data does not depend on it, except through its inputs
        inputs.pop("data.attack", None)
    if not sees_root(views):
        data = _without_root(data)
    for argument in inputs:  # their hashes count, not where they lie
        part, _, parameter = argument.partition(".")
        (data if part == "data" else config["model"].get("init_args", {})).pop(parameter, None)
    content = {
        "seed": config.get("seed_everything"),
        "trainer": _counted(config["trainer"]),
        "model": config["model"],
        "data": {**config["data"], "init_args": data},
        "inputs": inputs,
        "fingerprint": fingerprint,
        "verb": verb,
    }
    content["code"] = None if trust_cache else code_of(content["model"], content["data"])
    return _hash(content)


def stage_identities(chain: Mapping[str, Any]) -> dict[str, str]:
    """Name each stage of a composed chain by what determines it, before anything runs and without torch.

    Equal identities mean equal keys where the data are the same. A key also counts what only a run knows: the images
    and the hashes of the inputs.
    """
    found: dict[str, str] = {}
    before = (chain.get("summary") or {}).get("before")
    attackers = cut(chain, before)["stages"] if before else ()  # who have no root set, so that its size says nothing
    for name, stage in chain["stages"].items():
        inputs = {argument: found[source] for argument, source in stage.get("inputs", {}).items()}
        said = _said(chain, name)
        if name in attackers:
            said["data"]["init_args"] = _without_root(said["data"]["init_args"])
        code = code_of(said["model"], said["data"])
        found[name] = _hash({**said, "seed": chain["seed"], "inputs": inputs, "code": code})
    return found


def stage_kin(chain: Mapping[str, Any], name: str) -> str:
    """Name what a stage has in common with those that differ in seed, attack and inputs: it takes them as long."""
    said = _said(chain, name)
    for arguments in (said["data"]["init_args"], said["model"].get("init_args", {})):
        for argument in ("seed", "attack", "target"):
            arguments.pop(argument, None)
    return _hash(said)


def _said(chain: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Give all that a composed chain says about a stage and that a result depends on."""
    config, stage = stage_config(chain, name), chain["stages"][name]
    data = {k: v for k, v in config["data"].get("init_args", {}).items() if k not in _DATA}
    return {
        **{k: v for k, v in stage.items() if k not in ("model", "data", "trainer", "inputs", "run")},
        "verb": stage.get("run", "fit"),
        "trainer": _counted(config["trainer"]),
        "model": config["model"],
        "data": {**config["data"], "init_args": data},
    }


def _without_root(data: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out of the data's arguments what says which root set the defender has."""
    data = {name: value for name, value in copy.deepcopy(dict(data)).items() if name != "root_source"}
    if isinstance(data.get("split"), dict):
        data["split"].get("init_args", data["split"]).pop("root", None)
    return data


def _hash(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:32]


def _counted(trainer: Mapping[str, Any]) -> dict[str, Any]:
    """Keep the Trainer's arguments that a result depends on."""
    return {k: v for k, v in trainer.items() if k not in _TRAINER and (v or k != "callbacks")}


def code_of(*nodes: Any) -> tuple[str, str]:
    """Give the package's version, and a hash of the source behind all classes that configurations name."""
    return __version__, source_hash(*sorted({name for node in nodes for name in _classes(node)}))


def _classes(node: Any) -> Iterator[str]:
    """Give every class, and every function that makes a net, which a configuration names."""
    if isinstance(node, Mapping):
        yield from (str(node[key]) for key in ("class_path", "factory") if isinstance(node.get(key), str))
        node = list(node.values())
    for item in node if isinstance(node, list) else ():
        yield from _classes(item)


@cache
def source_hash(*names: str) -> str:
    """Hash the source of the modules that define classes, and of what those import, directly or not.

    Modules of this package count and those of a project that is not installed; libraries do not.
    """
    seen: dict[str, str] = {}
    queue = [name.rpartition(".")[0] for name in names]
    while queue:
        name = queue.pop()
        if name not in seen and (found := _module(name)) is not None:
            seen[name], imported = found
            queue += imported
    return hashlib.sha256(json.dumps(sorted(seen.items())).encode()).hexdigest()


@cache
def _module(name: str) -> tuple[str, tuple[str, ...]] | None:
    """Give the hash of a module's source and the names that it imports; None for libraries and what is no module."""
    file = _file(name)
    if file is None:
        return None
    text, imported = file.read_bytes(), []
    package = name if file.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom):
            module = resolve_name("." * node.level + (node.module or ""), package) if node.level else node.module
            imported += [str(module), *(f"{module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            imported += [alias.name for alias in node.names]
    return hashlib.sha256(text).hexdigest(), tuple(imported)


def _file(name: str) -> Path | None:
    """Find a module's source without importing it; None for libraries, and where the name is no module."""
    top, *below = name.split(".")
    try:
        found = None if top in sys.stdlib_module_names else find_spec(top)
    except ValueError:  # no name, or a script's own
        return None
    if found is None:
        return None
    files = [Path(found.origin)] if found.origin and not below else []
    for place in found.submodule_search_locations or ():
        files += [Path(place, *below, "__init__.py"), Path(place, *below).with_suffix(".py")]
    file = next((file for file in files if file.suffix == ".py" and file.is_file()), None)
    installed = file is not None and {"site-packages", "dist-packages"} & set(file.parts)
    return None if installed and top != "lit_backdoor" else file
