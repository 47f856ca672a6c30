"""``lit-backdoor list``: what there is, found by looking."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Iterable
from types import ModuleType

import yaml
from rich.console import Console
from rich.table import Table

import lit_backdoor.attacks
import lit_backdoor.data.sources
import lit_backdoor.defenses
import lit_backdoor.models
import lit_backdoor.stages
from lit_backdoor.presets import list_configs
from lit_backdoor.stages import Stage

__all__ = ["print_list"]


def print_list(kinds: Iterable[str]) -> None:
    """Print a table for each of ``attacks``, ``defenses``, ``stages``, ``datasets``, ``models``, ``chains``."""
    finders = {
        "attacks": lambda: _configs("attacks") + _classes(lit_backdoor.attacks, Stage),
        "chains": lambda: _configs("chains"),
        "defenses": lambda: _classes(lit_backdoor.defenses, Stage),
        "stages": lambda: _classes(lit_backdoor.stages, Stage),
        "datasets": lambda: _classes(lit_backdoor.data.sources, lit_backdoor.data.sources.Source),
        "models": lambda: _classes(lit_backdoor.models, lit_backdoor.models.Classifier),
    }
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 240  # a line for each, whatever reads them
    for kind in kinds:
        table = Table(title=kind, title_justify="left", box=None, show_header=False, padding=(0, 2, 0, 0))
        table.add_column(no_wrap=True)
        table.add_column(style="dim")
        for name, text in finders[kind]():
            table.add_row(name, text)
        console.print(table, soft_wrap=False)


def _configs(kind: str) -> list[tuple[str, str]]:
    found = []
    for name, path in list_configs(kind).items():
        text = path.read_text()
        described = (yaml.safe_load(text) or {}).get("description") if kind == "chains" else None
        found.append((name, described or text.partition("\n")[0].removeprefix("#").strip()))
    return found


def _classes(package: ModuleType, base: type) -> list[tuple[str, str]]:
    """Name the classes that a package offers, or else its packages, with the first line of their docstrings."""
    modules = [package]
    if not hasattr(package, "__all__"):
        inner = pkgutil.iter_modules(package.__path__, f"{package.__name__}.")
        modules = [importlib.import_module(info.name) for info in inner]
    offered = (getattr(module, name) for module in modules for name in getattr(module, "__all__", ()))
    classes = {value for value in offered if inspect.isclass(value) and issubclass(value, base) and value is not base}
    return sorted((_public(cls), (inspect.getdoc(cls) or "").partition("\n")[0]) for cls in classes if _is_whole(cls))


def _is_whole(cls: type) -> bool:
    """Say whether a class has no abstract method left; stages are no ABCs, so that inspect does not see theirs."""
    return not any(getattr(getattr(cls, name, None), "__isabstractmethod__", False) for name in dir(cls))


def _public(cls: type) -> str:
    """Give the shortest import path that a configuration can name."""
    parts = cls.__module__.split(".")
    for length in range(2, len(parts) + 1):
        name = ".".join(parts[:length])
        if getattr(importlib.import_module(name), cls.__name__, None) is cls:
            return f"{name}.{cls.__name__}"
    return f"{cls.__module__}.{cls.__name__}"
