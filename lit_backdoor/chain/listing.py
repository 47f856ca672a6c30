"""``lit-backdoor list``: what there is, read from configurations and sources; nothing is imported."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from lit_backdoor.errors import unknown
from lit_backdoor.presets import find_config, list_configs, read_config, read_method

__all__ = ["print_defense", "print_list"]

_CONFIGS = ("setups", "attacks", "chains", "grids")
_CLASSES = {  # packages, and the base of the classes that are listed
    "stages": ("Stage", ("stages", "attacks")),
    "datasets": ("Source", ("data/sources",)),
    "models": ("Classifier", ("models",)),
}
_PACKAGE = Path(__file__).parent.parent


def print_list(kinds: Iterable[str]) -> None:
    """Print a table for each kind: configurations by their descriptions, classes by their docstrings' first lines."""
    for kind in kinds:
        rows = _configs(kind) if kind in _CONFIGS else _defenses() if kind == "defenses" else _classes(kind)
        _print(kind, rows)


def print_defense(name: str) -> None:
    """Print what is known about a defense: its paper, needs, variants, command and measured numbers.

    Raises:
        ValueError: If there is no such defense.
    """
    path = find_config("defenses", name)
    method = read_method(path.parent)
    needs = method.get("needs") or {}
    said = [what for what, key in (("a root set", "root"), ("the questioned set", "questioned")) if needs.get(key)]
    if needs.get("target") == "given":
        said.append("the target class")
    command = f"lit-backdoor chain {_key(path)} --setup signs --attack badnets"
    rows = [
        ("paper", str(method.get("paper", ""))),
        ("needs", ", ".join(said)),
        ("recommended", str(method.get("recommended", ""))),
        ("command", command),
    ]
    _print(f"{_key(path)}: {_described(path)}", [(what, text) for what, text in rows if text])
    folder = [(key, _described(file)) for key, file in list_configs("defenses").items() if file.parent == path.parent]
    _print("variants", folder)
    if measured := list(_measured({key.rpartition("/")[2] for key, _ in folder} | {key for key, _ in folder})):
        _print("measured: ASR and ACC before and after", measured)


def _print(title: str, rows: Iterable[tuple[str, str]]) -> None:
    console = Console(highlight=False, markup=False)
    if not console.is_terminal:
        console.width = 240  # a line for each, whatever reads them
    table = Table(title=title, title_justify="left", box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(style="dim")
    for name, text in rows:
        table.add_row(name, text)
    console.print(table, soft_wrap=False)


# Configurations.


def _configs(kind: str) -> list[tuple[str, str]]:
    return [(key, _described(path)) for key, path in list_configs(kind).items()]


def _defenses() -> list[tuple[str, str]]:
    """Name every defense and variant, without controls and ablations; the one that a method recommends is marked."""
    rows = []
    for key, path in list_configs("defenses").items():
        method, name = read_method(path.parent), key.rpartition("/")[2]
        if name in (method.get("controls") or ()):
            continue
        recommended = method.get("recommended") in (key, name)
        rows.append((_shortest(key), f"{_described(path)}{' (recommended)' if recommended else ''}"))
    return rows


def _described(path: Path) -> str:
    """Give a configuration's description, else its first comment."""
    content = read_config("chains", path)
    said = content.get("description") if isinstance(content, dict) else None
    return str(said or path.read_text().partition("\n")[0].removeprefix("#").strip())


def _key(path: Path) -> str:
    return next((_shortest(key) for key, file in list_configs("defenses").items() if file == path), str(path))


def _shortest(key: str) -> str:
    """Give the name of a defense without its folder if that says its method and no other has it."""
    folder, _, short = key.rpartition("/")
    alone = sum(other.rpartition("/")[2] == short for other in list_configs("defenses")) == 1
    return short if alone and short.startswith(folder) else key


def _measured(names: set[str]) -> Iterator[tuple[str, str]]:
    """Read the shipped rows of defenses, one of each seed."""
    for file in sorted((_PACKAGE / "board" / "results").glob("*.jsonl")):
        for row in map(json.loads, file.read_text().splitlines()):
            defense, attack = (_name(row.get(key)) for key in ("defense", "attack"))
            if defense in names and row.get("before") and row.get("after"):
                numbers = [row[part].get(key) for key in ("asr", "acc") for part in ("before", "after")]
                if None not in numbers:
                    asr, after, acc, kept = numbers
                    said = f"ASR {asr:.3f} to {after:.3f}, ACC {acc:.3f} to {kept:.3f}"
                    yield (
                        f"{defense}, {_name(row.get('setup') or row.get('dataset'))}, {attack}, seed {row.get('seed')}",
                        said,
                    )


def _name(value: Any) -> str:
    return str(value.get("name")) if isinstance(value, dict) else str(value)


# Classes.


def _classes(kind: str) -> list[tuple[str, str]]:
    """Name the classes that packages offer and that have no abstract method left."""
    base, folders = _CLASSES[kind]
    rows = []
    for folder in folders:
        package = f"lit_backdoor.{folder.replace('/', '.')}"
        for name in _offered(_PACKAGE / folder / "__init__.py"):
            line = _line_of(name)
            if name != base and base in line and not _abstract(line):
                rows.append((f"{package}.{name}", (ast.get_docstring(_sources()[name]) or "").partition("\n")[0]))
    return sorted(rows)


@lru_cache
def _sources() -> dict[str, ast.ClassDef]:
    """Parse the classes of the packages that are listed, and of what they are made from."""
    found: dict[str, ast.ClassDef] = {}
    for folder in ("stages", "attacks", "data/sources", "models"):
        for path in sorted((_PACKAGE / folder).rglob("*.py")):
            found |= {node.name: node for node in ast.parse(path.read_text()).body if isinstance(node, ast.ClassDef)}
    return found


def _offered(path: Path) -> list[str]:
    """Read the names in a module's ``__all__``."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", None) == "__all__":
            return [str(name) for name in ast.literal_eval(node.value)]
    raise unknown("list of names in", str(path), ["__all__"])


def _line_of(name: str) -> list[str]:
    """Name a class and those that it derives from, nearest first, as far as they are in the sources."""
    if name not in _sources():
        return []
    bases = [ast.unparse(base).partition("[")[0] for base in _sources()[name].bases]
    return [name, *(other for base in bases for other in _line_of(base))]


def _abstract(line: list[str]) -> bool:
    """Say whether one of a class's methods is abstract where it was defined last."""
    last: dict[str, bool] = {}
    for name in line:
        for node in _sources()[name].body:
            if isinstance(node, ast.FunctionDef):
                marks = {ast.unparse(mark) for mark in node.decorator_list}
                last.setdefault(node.name, "abstractmethod" in marks)
    return any(last.values())
