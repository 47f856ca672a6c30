"""Where files are that no argument names: the shipped configurations, and the cache."""

from __future__ import annotations

import copy
import os
import re
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from lit_backdoor.errors import first_lines, unknown

__all__ = [
    "METHOD_FILE", "at_home", "cache_folder", "config_folder", "find_config", "list_configs", "read_config",
    "read_method", "read_yaml",
]  # fmt: skip

METHOD_FILE = "method.yaml"  # what a folder of defenses says of its method


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
    """Give the shipped configurations of one kind (``setups``, ``attacks``, ``defenses``, ``chains``, ``grids``).

    They are keyed by their path below the kind's folder, without suffix; METHOD/METHOD.yaml is METHOD. What a folder of
    defenses has for single setups is none of them.
    """
    return dict(_listed(config_folder() / kind))


@lru_cache
def _listed(folder: Path) -> dict[str, Path]:
    found = {}
    for path in sorted(folder.rglob("*.yaml")):
        *parents, _ = parts = path.relative_to(folder).with_suffix("").parts
        if path.name != METHOD_FILE and "setups" not in parents:
            found["/".join(parents if parts[-2:] == (path.stem, path.stem) else parts)] = path
    return found


def find_config(kind: str, name: str, *, among: tuple[str, ...] = ()) -> Path:
    """Find a configuration by its shipped name, or as a file.

    A name is the path below the kind's folder (``pgbd/paper``), or its last part where only one file has it.

    Args:
        kind: The kind that errors name.
        name: What was given.
        among: All kinds that it may be of; default ``kind`` only.

    Raises:
        ValueError: If there is none, or the name is that of several; names the nearest, or all of them.
    """
    if name.endswith((".yaml", ".yml")):
        if Path(name).is_file():
            return Path(name)
        raise ValueError(f"Expected a file at '{name}', found none.")
    known = [item for each in among or (kind,) for item in list_configs(each).items()]
    exact = [(key, path) for key, path in known if key == name]
    found = exact or [(key, path) for key, path in known if key.rpartition("/")[2] == name]
    if len(found) > 1:
        keys = ", ".join(key for key, _ in found)
        what = kind.removesuffix("s")
        raise ValueError(f"Expected a {what} of a name of its own, but '{name}' may be {keys}. Give one of them.")
    if not found:
        raise unknown(
            kind.removesuffix("s"), name, {text for key, _ in known for text in (key, key.rpartition("/")[2])}
        )
    return found[0][1]


def read_config(kind: str, path: Path) -> Any:
    """Read a configuration file: what its YAML says.

    Raises:
        ValueError: If the file is not YAML.
    """
    try:
        state = path.stat()
        if state.st_size > 4 * LARGEST:  # bytes; no character of UTF-8 takes more than four
            raise ValueError(f"it has {state.st_size:,} bytes; a configuration has at most {LARGEST:,} characters")
        return copy.deepcopy(_parsed(path, state.st_mtime_ns))
    except ValueError as error:
        raise ValueError(f"The {kind.removesuffix('s')} file {path} is not YAML: {error}") from error


def read_method(folder: Path) -> dict[str, Any]:
    """Read what a folder of defenses says of its method; empty where it says nothing.

    Raises:
        ValueError: If its file says no keys and values, or its ``needs`` are none.
    """
    file = folder / METHOD_FILE
    said = (read_config("defenses", file) if file.is_file() else None) or {}
    if not isinstance(said, dict) or not isinstance(said.get("needs") or {}, dict):
        raise ValueError(f"Expected keys and values in {file}, also below 'needs', got {said!r:.80}.")
    return said


@lru_cache
def _parsed(path: Path, changed: int) -> Any:
    """Read a file once for each time that it was changed."""
    return read_yaml(path.read_text(encoding="utf-8-sig"))


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
    except (LookupError, AttributeError, TypeError, ArithmeticError) as error:  # what PyYAML raises on odd tags
        raise ValueError("a value does not fit the tag (!!…) before it; leave the tag out") from error
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


_Loader.add_implicit_resolver(  # YAML 1.1, which PyYAML reads, takes 1e-4 for a text
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d{1,3}$"), list("-+.0123456789")
)


def cache_folder() -> Path:
    """Give the folder of what is kept between runs: ``$LIT_BACKDOOR_CACHE``, else one in the user's cache folder."""
    users = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return at_home(os.environ.get("LIT_BACKDOOR_CACHE") or f"{users}/lit_backdoor")


def at_home(path: str | Path) -> Path:
    """Give a path whose ``~`` stands for the user's home.

    Raises:
        ValueError: If nobody knows that home, as of a user who does not exist, or no path has such signs.
    """
    if "\0" in str(path):
        raise ValueError(f"Expected a path without zero bytes, got {str(path)!r}.")
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise ValueError(f"Expected a path whose ~ is somebody's home, got '{path}': {error} Write it out.") from error
