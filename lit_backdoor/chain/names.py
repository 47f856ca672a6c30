"""What a chain's keys may be, and the merging of its sections; no class is imported."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from lit_backdoor.errors import unknown

__all__ = ["TOP", "check_keys", "copied", "known", "merge", "section"]

TOP = {
    "format", "base", "set", "setup", "attack", "root", "questioned", "trust", "sweep", "seed", "data", "trainer",
    "stages", "summary", "description",
}  # fmt: skip
_STAGE = {"run", "model", "data", "trainer", "inputs", "steps", "passes", "seed", "defaults"}


def check_keys(chain: Mapping[str, Any]) -> None:
    """Check every key of a chain, its stages' names and its numbers; classes and their arguments are not looked at.

    Raises:
        ValueError: At the first that is wrong; gives the nearest name.
    """
    known("key of a chain", chain, TOP)
    _check_seed(chain["seed"], "the chain's seed")
    trust = chain.get("trust") or []
    if not isinstance(trust, list) or not all(isinstance(name, str) for name in trust):
        raise ValueError(f"Expected 'trust' in the chain to list names of packages or modules, got {trust!r}.")
    section(chain, "trainer")
    _check_class_path(chain["data"], "data")
    if "seed" in chain["data"]["init_args"]:
        raise ValueError("Expected no data.init_args.seed, which the chain's own seed would replace. Set 'seed'.")
    if "source" not in chain["data"]["init_args"]:
        raise ValueError("Expected the chain to name its images: data.init_args.source: {class_path: …}.")
    seen: list[str] = []
    for name in chain["stages"]:
        _check_stage(name, section(chain["stages"], name), seen)
        seen.append(name)
    for role, name in section(chain, "summary").items():
        known("key of the summary", [role], {"before", "after"})
        if name is not None and name not in seen:
            raise unknown("stage", str(name), seen)


def _check_stage(name: str, stage: Mapping[str, Any], seen: list[str]) -> None:
    known(f"key of stage '{name}'", stage, _STAGE)
    if stage.get("run", "fit") not in ("fit", "predict"):
        raise ValueError(f"Expected 'run' of stage '{name}' to be fit or predict, got {stage['run']!r}.")
    _check_class_path(stage.get("model"), f"stages.{name}.model")
    section(stage, "trainer")
    section(stage, "data")
    _check_seed(stage.get("seed", 0), f"the seed of stage '{name}'")
    for key in ("steps", "passes"):
        value = stage.get(key, 1)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ValueError(f"Expected {key} of stage '{name}' to be a whole number of at least 1, got {value!r}.")
    if "steps" in stage and "max_epochs" in section(stage, "trainer"):
        raise ValueError(
            f"Expected steps or trainer.max_epochs for stage '{name}', got both. To say epochs add "
            f"--set stages.{name}.steps=null."
        )
    for argument, source in section(stage, "inputs").items():
        if source not in seen:
            raise unknown(f"earlier stage, for input '{argument}' of stage '{name}',", str(source), seen)
        known(f"input of stage '{name}'", [str(argument).partition(".")[0]], ("model", "data"))


def _check_seed(seed: Any, what: str) -> None:
    if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < 2**32:
        raise ValueError(f"Expected {what} to be a whole number from 0 to 2**32 - 1, got {seed!r}.")


def _check_class_path(node: Any, path: str) -> None:
    if not isinstance(node, Mapping) or "class_path" not in node:
        raise ValueError(f"Expected '{path}' to name its class: {{class_path: …}}, got {node!r}.")


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Lay one mapping over another; where a ``class_path`` changes, the old ``init_args`` go. Nothing is shared."""
    gone = {"init_args"} if "class_path" in over and over["class_path"] != base.get("class_path") else set()
    merged = {key: value for key, value in base.items() if key not in gone} | dict(over)
    for key, value in merged.items():
        both = key in over and key not in gone and isinstance(value, Mapping) and isinstance(base.get(key), Mapping)
        merged[key] = merge(base[key], value) if both else copied(value)
    return merged


def copied(node: Any) -> Any:
    """Copy a tree of mappings and lists; of plain values, as YAML gives them, `copy.deepcopy` would be slow."""
    if isinstance(node, Mapping):
        return {key: copied(value) for key, value in node.items()}
    return [copied(value) for value in node] if isinstance(node, list) else node


def section(parent: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Give a part of a chain or a grid that may be missing or empty, but is nothing other than a mapping."""
    found = parent.get(name)
    if found is not None and not isinstance(found, Mapping):
        raise ValueError(f"Expected '{name}' to be a section of keys and values, got {found!r:.80}.")
    return found or {}


def known(what: str, given: Iterable[Any], names: Iterable[str]) -> None:
    """Refuse the first name that is not among the known ones; ``what`` says what they name.

    Raises:
        ValueError: With the nearest known name.
    """
    allowed = set(names)
    for name in given:
        if name not in allowed:
            raise unknown(what, str(name), allowed)
