"""Grid files: lists of setups, attacks, defenses and seeds, and the cells that they multiply to. Needs no torch."""

from __future__ import annotations

import json
import math
import warnings
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

from lit_backdoor.chain.names import known, section
from lit_backdoor.disk import clean_name
from lit_backdoor.presets import find_config, read_config

__all__ = ["Cell", "GridFile", "read_grid"]

FORMAT = 1
_MOST_CELLS, _MOST_FILES = 20_000, 100
_AXES = {"setups": "setup", "attacks": "attack", "defenses": "defense", "seeds": "seed"}
_KEYS = {"format", "description", "include", *_AXES, "exclude", "overrides", "relapse", "resources", "flags", "goal"}
_DEFAULTS: dict[str, list[Any]] = {"setups": ["signs"], "attacks": ["badnets"], "defenses": [], "seeds": [0]}


@dataclass(frozen=True)
class Cell:
    """One chain of a grid.

    Attributes:
        setup: Name or file of the setup.
        attack: Name or file of the attack; ``null`` for a clean model.
        defense: Name or file of the defense.
        seed: Seed of the chain.
        settings: What its overrides set, as ``a.b.c=value``.
        relapse: Whether the cleaned suspect is fine-tuned once more to see if the backdoor comes back.
        cpus: Threads that each of its runs gets; None for as many as the machine gives.
        gpus: GPUs that it takes, or a share of one.
        flags: Remarks for its row.
        goal: The largest ASR and the largest ACC drop that count as reached; None for none.
    """

    setup: str
    attack: str
    defense: str
    seed: int
    settings: tuple[str, ...] = ()
    relapse: bool = False
    cpus: int | None = None
    gpus: float = 0
    flags: tuple[str, ...] = ()
    goal: tuple[float | None, float | None] = (None, None)

    @property
    def titles(self) -> tuple[str, str, str]:
        """Names of setup, attack and defense; files go by theirs."""
        setup, attack, defense = (
            Path(text).stem if text.endswith((".yaml", ".yml")) else text
            for text in (self.setup, self.attack, self.defense)
        )
        return setup, attack, defense

    @property
    def name(self) -> str:
        """Name of its folder."""
        return clean_name("-".join([*self.titles, f"seed{self.seed}"]))

    @property
    def words(self) -> list[str]:
        """The arguments of ``lit-backdoor`` that run it, without where it writes."""
        words = ["chain", self.defense, "--setup", self.setup, "--attack", self.attack, "--seed", str(self.seed)]
        words += [word for text in self.settings for word in ("--set", text)]
        return [*words, "--relapse"] if self.relapse else words


@dataclass(frozen=True)
class GridFile:
    """A grid that was read: its name and its cells."""

    name: str
    cells: tuple[Cell, ...] = field(default=())


def read_grid(name: str) -> GridFile:
    """Read a grid by name or file and multiply its lists.

    Raises:
        ValueError: If the file is no grid, a name in it is not known, no cell is left, or two cells would write one
            folder.
    """
    path = find_config("grids", name)
    cells = _read(path, (), [])
    if not cells:
        raise ValueError(f"Expected the grid {path} to have cells, got none: give it defenses, and exclude fewer.")
    folders: dict[str, Cell] = {}
    for cell in cells:
        other = folders.setdefault(cell.name, cell)
        if other != cell:
            raise ValueError(
                f"Expected cells of different names in the grid {path}, but two would write '{cell.name}': {other} and "
                f"{cell}. Rename one of the files, or exclude one."
            )
    return GridFile(path.stem, tuple(folders.values()))


def _read(path: Path, above: tuple[Path, ...], seen: list[Path]) -> list[Cell]:
    seen.append(path)
    if len(seen) > _MOST_FILES:
        raise ValueError(f"Expected a grid of at most {_MOST_FILES} files, got more: {path} is included too often.")
    content = read_config("grids", path)
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ValueError(f"Expected a grid file with 'format: {FORMAT}' at {path}. See configs/grids for examples.")
    known("key of a grid", content, _KEYS)
    cells = []
    for name in _list(content, "include", path, []):
        below = path.parent / str(name)
        below = below if below.is_file() else find_config("grids", str(name))
        if below.resolve() in (*above, path.resolve()):
            raise ValueError(f"Expected the grid {path} to include other grids, but '{name}' leads back to it.")
        cells += _read(below, (*above, path.resolve()), seen)
    return cells + _multiplied(content, path)


def _multiplied(content: Mapping[str, Any], path: Path) -> list[Cell]:
    axes = [_axis(content, axis, path) for axis in _AXES]
    if (count := math.prod(map(len, axes))) > _MOST_CELLS:
        raise ValueError(f"Expected at most {_MOST_CELLS:,} cells in the grid {path}, got {count:,}. Write several.")
    excludes, overrides = _list(content, "exclude", path, []), _list(content, "overrides", path, [])
    for override in overrides:
        if not isinstance(override, Mapping):
            raise ValueError(
                f"Expected overrides such as {{when: {{seed: 0}}, set: {{a.b.c: 1}}}} in the grid {path}, got "
                f"{override!r}."
            )
        known(f"key of an override in the grid {path}", override, {"when", "set"})
    places = (
        [_conditions(each, path) for each in excludes],
        [_conditions(each["when"], path) if "when" in each else {} for each in overrides],
    )
    matched: set[tuple[int, int]] = set()

    def matching(kind: int, at: Mapping[str, Any]) -> list[int]:
        found = [n for n, when in enumerate(places[kind]) if all(at[key] in values for key, values in when.items())]
        matched.update((kind, n) for n in found)
        return found

    relapse = {_text(name, path) for name in _list(content, "relapse", path, [])}
    known(f"defense to test for relapse in the grid {path}", relapse, axes[2])
    resources = _resources(content, axes[0], path)
    flags, goal = tuple(map(str, _list(content, "flags", path, []))), _goal(content, path)
    cells = []
    for setup, attack, defense, seed in product(*axes):
        at = {"setup": setup, "attack": attack, "defense": defense, "seed": seed}
        if matching(0, at):
            continue
        settings = {key: value for n in matching(1, at) for key, value in section(overrides[n], "set").items()}
        texts = tuple(f"{key}={_written(key, value, path)}" for key, value in settings.items())
        cells.append(Cell(setup, attack, defense, seed, texts, defense in relapse, *resources[setup], flags, goal))
    for kind, what in enumerate(("exclude", "overrides")):
        for n, when in enumerate(places[kind]):
            if (kind, n) not in matched:
                warnings.warn(f"'{what}' of the grid {path} has an entry that matches no cell: {when}.", stacklevel=2)
    return cells


def _axis(content: Mapping[str, Any], axis: str, path: Path) -> list[Any]:
    """Read a list of names, all of them known, or of seeds."""
    values = _list(content, axis, path, [] if "include" in content and axis == "defenses" else _DEFAULTS[axis])
    if axis == "seeds":
        for value in values:
            if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**32:
                raise ValueError(f"Expected seeds from 0 to 2**32 - 1 in the grid {path}, got {value!r}.")
    else:
        values = [_text(value, path) for value in values]
        for value in values:
            if not (axis == "attacks" and value == "null"):
                find_config(axis, value)
    double = [value for value, count in Counter(values).items() if count > 1]
    if double:
        raise ValueError(f"Expected each of the {axis} in the grid {path} once, got '{double[0]}' twice.")
    return values


def _conditions(given: Any, path: Path) -> dict[str, list[Any]]:
    """Read which cells an exclude or an override is about: for each axis a value or several."""
    if not isinstance(given, Mapping) or not given:
        raise ValueError(f"Expected conditions such as {{defense: pgbd}} in the grid {path}, got {given!r}.")
    known(f"condition in the grid {path}", given, _AXES.values())
    lists = {key: value if isinstance(value, list) else [value] for key, value in given.items()}
    return {key: values if key == "seed" else [_text(value, path) for value in values] for key, values in lists.items()}


def _resources(content: Mapping[str, Any], setups: list[str], path: Path) -> dict[str, tuple[int | None, float]]:
    """Read the threads and GPUs of each setup's runs; ``default`` stands for setups that are not named."""
    given = section(content, "resources")
    known(f"setup with resources in the grid {path}", given, [*setups, "default"])
    found = {}
    for setup in setups:
        wanted = section(given, setup if setup in given else "default")
        known(f"resource of '{setup}' in the grid {path}", wanted, {"cpus", "gpus"})
        cpus, gpus = wanted.get("cpus"), wanted.get("gpus", 0)
        if cpus is not None and (type(cpus) is not int or cpus < 1):
            raise ValueError(f"Expected cpus of '{setup}' in the grid {path} as a whole number from 1, got {cpus!r}.")
        if type(gpus) not in (int, float) or not (0 <= gpus <= 1 or (gpus > 1 and gpus % 1 == 0)):
            raise ValueError(
                f"Expected gpus of '{setup}' in the grid {path} as a whole number or a share of one GPU, got {gpus!r}."
            )
        found[setup] = (cpus, gpus)
    return found


def _goal(content: Mapping[str, Any], path: Path) -> tuple[float | None, float | None]:
    """Read what counts as reached."""
    given = section(content, "goal")
    known(f"goal of the grid {path}", given, ("asr", "acc_drop"))
    for name, value in given.items():
        if type(value) not in (int, float) or not 0 <= value <= 1:
            raise ValueError(f"Expected the goal's {name} in the grid {path} as a share in [0, 1], got {value!r}.")
    return given.get("asr"), given.get("acc_drop")


def _list(content: Mapping[str, Any], key: str, path: Path, default: list[Any]) -> list[Any]:
    found = content.get(key, default)
    if not isinstance(found, list):
        raise ValueError(f"Expected '{key}' in the grid {path} to be a list, got {found!r}.")
    return found


def _text(name: Any, path: Path) -> str:
    """Give a name as ``chain`` takes it; a file beside the grid's goes by its path."""
    beside = path.parent / str(name)
    if str(name).endswith((".yaml", ".yml")) and beside.is_file():
        return str(beside)
    return "null" if name is None else str(name)


def _written(key: Any, value: Any, path: Path) -> str:
    """Write a value as ``--set`` reads it."""
    try:
        return json.dumps(value, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"Expected finite numbers, texts, lists and mappings of them as values of 'set' in the grid {path}, got "
            f"{key}: {value!r}."
        ) from error
