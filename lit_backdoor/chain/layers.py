"""The files behind a chain, laid one over the other: setup, attack, bases, the file itself, the setup's lengths."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lit_backdoor.chain.names import TOP, known, merge, section
from lit_backdoor.chain.sections import replace_lengths, set_attack, set_value
from lit_backdoor.errors import unknown
from lit_backdoor.presets import find_config, read_config

__all__ = ["FORMAT", "SETUP", "lay_out"]

FORMAT = 1
SETUP, ATTACK = "signs", "badnets"  # where nothing else is said
_OWN = {"format", "base", "set", "setup", "attack"}  # what says which files there are
_MOST_FILES = 100  # that a chain is based on, each as often as it is named
_LENGTHS = ("steps", "passes", "batch_size")
_FREE = {"decoder"}  # stages that see neither suspect nor attack: a setup may choose their nets and images, too


def lay_out(name: str, setup: str | None, attack: str | None) -> dict[str, Any]:
    """Lay the files that a chain is made of one over the other; an attack is still named, where it was.

    A file that names its data module is a chain by itself; any other is laid over a setup.

    Args:
        name: A shipped defense or chain, or a file.
        setup: A shipped setup or a file; None for the one that the chain's files name, else the embedded signs.
        attack: A shipped attack or a file, ``null`` for a clean model; None for what the files say, else BadNets.

    Raises:
        ValueError: If a file is none of the kind, or the parts do not fit together.
    """
    path = find_config("chains", name, among=("defenses", "chains"))
    files = _lineage(path)
    if any("class_path" in section(content, "data") for _, content in files):
        if setup is not None:
            raise ValueError(
                f"Expected no setup for the chain file {path}, which names its own data. For a chain that goes with "
                "any setup take data, victim and control out of it."
            )
        chain: dict[str, Any] = {}
        for _, content in files:
            chain = _laid(chain, content)
        if attack is not None:
            set_attack(chain, attack)
        return chain
    named = setup or next((content["setup"] for _, content in reversed(files) if content.get("setup")), SETUP)
    chain = _read_setup(str(named))
    given = [content["attack"] for content in (chain, *(content for _, content in files)) if "attack" in content]
    set_attack(chain, attack if attack is not None else given[-1] if given else ATTACK)
    for file, content in files:
        chain = _with_lengths(_laid(chain, content), file, chain["setup"])
    stages = chain["stages"]
    if "control" in stages:  # what it is compared with comes first
        chain["stages"] = {
            **{name: stage for name, stage in stages.items() if name != "control"},
            "control": stages["control"],
        }
    return _with_root(chain)


def _read_setup(name: str) -> dict[str, Any]:
    """Read a setup: data, a victim and a control."""
    path = find_config("setups", name)
    setup: dict[str, Any] = {}
    for _, content in _lineage(path):
        setup = {**_laid(setup, content), **{key: content[key] for key in ("attack",) if key in content}}
    if "class_path" not in section(setup, "data"):
        raise ValueError(f"Expected the setup {path} to name its data: data: {{class_path: …}}.")
    victim = section(section(setup, "stages"), "victim")
    if not {"classifier", "suspect"} & set(section(section(victim, "model"), "init_args")):
        raise ValueError(
            f"Expected the setup {path} to name a net: stages.victim.model.init_args.classifier: {{class_path: …}}; or "
            "the bundle of a suspect, for lit_backdoor.stages.GivenSuspect."
        )
    return {**setup, "setup": path.stem}


def _lineage(path: Path, above: tuple[Path, ...] = ()) -> list[tuple[Path, dict[str, Any]]]:
    """Read a file and the ones that it is based on, those first."""
    content = read_config("chains", path)
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ValueError(f"Expected a chain file with 'format: {FORMAT}' at {path}. See configs/chains for examples.")
    known("key of a chain", content, TOP)
    files: list[tuple[Path, dict[str, Any]]] = []
    base = content.get("base", [])
    for each in base if isinstance(base, list) else [base]:
        below = _beside(path, each)
        if below.resolve() in (*above, path.resolve()):
            raise ValueError(f"Expected the base of the chain file {path} to be another one, but it leads back to it.")
        if len(above) + len(files) > _MOST_FILES:
            raise ValueError(f"Expected the chain file {path} to be based on at most {_MOST_FILES} files, got more.")
        files += _lineage(below, (*above, path.resolve()))
    return [*files, (path, content)]


def _beside(path: Path, base: Any) -> Path:
    if not isinstance(base, str):
        raise ValueError(f"Expected the base of the chain file {path} to be a name or a file, or a list, got {base!r}.")
    neighbor = path.parent / base
    if base.endswith((".yaml", ".yml")) and neighbor.is_file():
        return neighbor
    name = base.removesuffix(".yaml") if Path(base).name == base else base
    return find_config("chains", name, among=("defenses", "chains", "setups"))


def _laid(chain: Mapping[str, Any], content: Mapping[str, Any]) -> dict[str, Any]:
    """Lay one file over what those before it say, then apply its ``set``."""
    chain = replace_lengths(chain, section(content, "stages"))
    chain = merge(chain, {key: value for key, value in content.items() if key not in _OWN})
    for key, value in sorted(section(content, "set").items(), key=lambda item: str(item[0]).count(".")):
        set_value(chain, str(key), value)
    return chain


def _with_lengths(chain: dict[str, Any], path: Path, setup: str) -> dict[str, Any]:
    """Lay what a method has for one setup over the chain: steps, passes and batch sizes of its stages, and the decoder.

    Raises:
        ValueError: If it says anything else, or names a stage that the chain lacks.
    """
    file = path.parent / "setups" / f"{setup}.yaml"
    if not file.is_file():
        return chain
    content = read_config("setups", file)
    stages = dict(section(content or {}, path.stem)) if isinstance(content, Mapping) else {}
    for name, stage in stages.items():
        if chain["stages"].get(name) is None:
            raise unknown(f"stage in {file}", str(name), chain["stages"])
        for key in () if name in _FREE else _leaves(stage):
            if not (key in _LENGTHS or key.endswith("_steps")):
                raise ValueError(
                    f"Expected only steps, passes and batch sizes for a setup in {file}, got '{key}' of stage "
                    f"'{name}'. For other settings make a defense of another name."
                )
    return merge(replace_lengths(chain, stages), {"stages": stages})


def _leaves(node: Any, key: str = "") -> list[str]:
    """Name the keys of all values that are no mappings."""
    if isinstance(node, Mapping):
        return [leaf for name, value in node.items() for leaf in _leaves(value, str(name))]
    return [key]


def _with_root(chain: dict[str, Any]) -> dict[str, Any]:
    """Give the defender the part of the setup's root set that the defense says, half of it for ``root: 0.5``."""
    share = chain.pop("root", None)
    if share is None:
        return chain
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share <= 1:
        raise ValueError(
            f"Expected 'root' in the chain to be a share of the setup's root set in (0, 1], got {share!r}."
        )
    arguments = chain["data"].setdefault("init_args", {})
    split = arguments.setdefault("split", {})
    split = split.setdefault("init_args", {}) if "class_path" in split else split
    whole = split.get("root", split.get("root_pool", 0.1))
    split["root"] = whole * share if isinstance(whole, float) else round(whole * share)
    return chain
