"""Where files are that no argument names: the shipped configurations, and the cache."""

from __future__ import annotations

import os
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from lit_backdoor.errors import first_lines, one_of

__all__ = ["cache_folder", "config_folder", "find_config", "list_configs", "read_config", "read_yaml"]


def config_folder() -> Path:
    """Give the folder of the shipped configurations: in the wheel beside the package, or at the top of a checkout.

    Raises:
        FileNotFoundError: If the installation lacks it.
    """
    package = Path(str(files("lit_backdoor")))
    for folder in (package / "configs", package.parent / "configs"):
        if (folder / "chains").is_dir():
            return folder
    raise FileNotFoundError(f"Expected the shipped configs beside {package}, found none. Install lit_backdoor again.")


def list_configs(kind: str) -> dict[str, Path]:
    """Give the shipped configurations of one kind (``attacks``, ``chains`` …), by name."""
    return {path.stem: path for path in sorted((config_folder() / kind).rglob("*.yaml"))}


def find_config(kind: str, name: str) -> Path:
    """Find a configuration by its shipped name, or as a file.

    Raises:
        ValueError: If there is none; names the nearest.
    """
    if name.endswith((".yaml", ".yml")):
        if Path(name).is_file():
            return Path(name)
        raise ValueError(f"Expected a file at '{name}', found none.")
    known = list_configs(kind)
    return known[one_of(kind.removesuffix("s"), name, known)]


def read_config(kind: str, path: Path) -> Any:
    """Read a configuration file: what its YAML says.

    Raises:
        ValueError: If the file is not YAML.
    """
    try:
        return read_yaml(path.read_text())
    except ValueError as error:
        raise ValueError(f"The {kind.removesuffix('s')} file {path} is not YAML: {error}") from error


def read_yaml(text: str) -> Any:
    """Read YAML in which each key occurs once, whose nodes do not hold themselves and whose aliases stay small.

    Raises:
        ValueError: If it is something else, or larger than a person writes.
    """
    if len(text) > LARGEST:
        raise ValueError(f"it has {len(text):,} characters; a configuration has at most {LARGEST:,}")
    try:
        value = yaml.load(text, _Loader)
    except yaml.MarkedYAMLError as error:
        line = "" if error.problem_mark is None else f", line {error.problem_mark.line + 1}"
        raise ValueError(f"{error.problem}{line}") from error
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(first_lines(str(error))) from error
    if _stands_for(value) > LARGEST:
        raise ValueError(f"its aliases stand for more than {LARGEST:,} values, or for themselves")
    return value


def _stands_for(value: Any) -> int:
    """Count the values of a document, each alias in full, and no further than is allowed."""
    waiting, count = [value], 1
    while waiting and count <= LARGEST:
        value = waiting.pop()
        parts = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []
        count += len(parts)
        waiting.extend(parts)
    return count


LARGEST = 2**18  # characters of a configuration, and values that it stands for


class _Loader(yaml.SafeLoader):
    def flatten_mapping(self, node: Any) -> None:
        """Take in merged mappings (``<<``), each key once: merges of merges would multiply without end."""
        if any(isinstance(value, yaml.SequenceNode) and len(value.value) > 20 for _, value in node.value):
            merged = [key for key, _ in node.value if key.tag == "tag:yaml.org,2002:merge"]
            if merged:
                raise yaml.MarkedYAMLError(None, None, "too many mappings are merged by '<<'", merged[0].start_mark)
        super().flatten_mapping(node)
        once = {key.value if isinstance(key, yaml.ScalarNode) else id(key): (key, value) for key, value in node.value}
        node.value = list(once.values())

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        """Refuse a key that stands twice, of which YAML's own reader would keep the last without a word."""
        seen = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen:
                raise yaml.MarkedYAMLError(None, None, f"the key '{key.value}' stands twice", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def cache_folder() -> Path:
    """Give the folder of what is kept between runs: ``$LIT_BACKDOOR_CACHE``, else one in the user's cache folder."""
    users = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(os.environ.get("LIT_BACKDOOR_CACHE") or f"{users}/lit_backdoor").expanduser()
