"""``lit-backdoor cache``: what the store holds, and its removal by age, size and use. Needs no torch."""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from lit_backdoor.chain.grid.cells import read_grid
from lit_backdoor.chain.grid.graph import connect
from lit_backdoor.chain.store import Store

__all__ = ["Stored", "print_store", "prune", "select", "stored"]

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_BYTES = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


@dataclass(frozen=True)
class Stored:
    """A bundle of the store: its key, the class of its stage, its bytes, and the seconds since it was last used."""

    key: str
    stage: str
    size: int
    age: float


def stored(store: Store) -> list[Stored]:
    """Look at every bundle of a store, the one used last first."""
    found, now = [], time.time()
    for file in (store.folder / "bundles").glob("*/bundle.json"):
        try:
            stage = str(json.loads(file.read_text()).get("stage") or "").rpartition(".")[2]
            size = sum(path.stat().st_size for path in file.parent.iterdir())
            found.append(Stored(file.parent.name, stage or "damaged", size, now - file.stat().st_mtime))
        except OSError:  # another process is removing it
            continue
        except (ValueError, AttributeError):
            found.append(Stored(file.parent.name, "damaged", file.stat().st_size, now - file.stat().st_mtime))
    return sorted(found, key=lambda each: each.age)


def select(
    bundles: Sequence[Stored], older_than: float | None, larger_than: int | None, reachable: set[str] | None
) -> list[Stored]:
    """Choose what to remove.

    Args:
        bundles: What there is, the one used last first.
        older_than: Seconds since the last use from which a bundle goes.
        larger_than: Bytes that the rest may have; what was not used for longest goes first.
        reachable: Keys of which all others go.
    """
    gone = {b.key for b in bundles if older_than is not None and b.age > older_than}
    gone |= {b.key for b in bundles if reachable is not None and b.key not in reachable}
    total = 0
    for bundle in bundles:
        if bundle.key not in gone:
            total += bundle.size
            if larger_than is not None and total > larger_than:
                gone.add(bundle.key)
    return [bundle for bundle in bundles if bundle.key in gone]


def prune(older_than: str | None, larger_than: str | None, grids: Iterable[str] | None, *, dry_run: bool) -> None:
    """Remove bundles from the store and say so; what a run is making stays.

    Raises:
        ValueError: If nothing says what to remove, or an age or a size cannot be read.
    """
    if older_than is None and larger_than is None and grids is None:
        raise ValueError("Expected what to remove: --older-than 30d, --larger-than 20GB or --unreachable-from GRID.")
    store, console = Store(), _console()
    seconds = None if older_than is None else _number(older_than, "--older-than", _SECONDS, "90m, 12h or 30d")
    most = None if larger_than is None else int(_number(larger_than, "--larger-than", _BYTES, "500MB or 20GB"))
    reachable = None if grids is None else _reachable(grids, store)
    freed, count = 0, 0
    for bundle in select(stored(store), seconds, most, reachable):
        if dry_run or store.remove(bundle.key):
            freed, count = freed + bundle.size, count + 1
            console.print(f"{'would remove' if dry_run else 'removed'} {bundle.key} {bundle.stage}", soft_wrap=True)
        else:
            console.print(f"in use {bundle.key} {bundle.stage}", soft_wrap=True)
    console.print(f"{count} bundles, {_size(freed)}{', nothing removed yet' if dry_run else ''}")


def print_store() -> None:
    """Print a table of the store's bundles."""
    store, console = Store(), _console()
    table = Table(box=None, padding=(0, 2, 0, 0))
    for column in ("key", "stage", "size", "last used", "made in"):
        table.add_column(column, no_wrap=True, justify="left" if column in ("key", "stage") else "right")
    bundles = stored(store)
    for bundle in bundles:
        seconds = store.made(bundle.key).get("seconds")
        made = f"{seconds:.0f} s" if isinstance(seconds, int | float) else "-"
        table.add_row(bundle.key, bundle.stage, _size(bundle.size), f"{bundle.age / 86400:.1f} d ago", made)
    console.print(table)
    console.print(f"{len(bundles)} bundles, {_size(sum(b.size for b in bundles))} in {store.folder}", soft_wrap=True)


def _reachable(grids: Iterable[str], store: Store) -> set[str]:
    nodes = [node for name in grids for node in connect(read_grid(name).cells)]
    keys = {store.key_of(identity) for node in nodes for identity in node.stages.values()}
    return {key for key in keys if key is not None}


def _number(text: str, option: str, units: dict[str, int], examples: str) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([A-Za-z]?)[Bb]?", text.strip())
    unit = next((each for each in units if match and each.lower() == match[2].lower()), None)
    if match is None or unit is None:
        raise ValueError(f"Expected {option} such as {examples}, got '{text}'.")
    number = float(match[1]) * units[unit]
    if not number < math.inf:
        raise ValueError(f"Expected {option} such as {examples}, got a number of {len(match[1])} digits.")
    return number


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count < 1e9 else f"{count / 1e9:.2f} GB"


def _console() -> Console:
    console = Console(highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console.width = 240  # a line for each, whatever reads them
    return console
