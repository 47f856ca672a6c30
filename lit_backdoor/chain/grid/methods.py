"""What the folder of a method says for the rows of its defenses: which data it is given, what its paper reports."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from lit_backdoor.board.rows import Reported
from lit_backdoor.chain.grid.cells import Cell
from lit_backdoor.presets import METHOD_FILE, find_config, read_method

__all__ = ["access_of", "reported_of"]

Access = Literal["none", "root", "questioned", "both"]
_OWN = ("paper", "release")  # configurations that are the paper's method, besides the one named after its folder


def access_of(cell: Cell) -> Access | None:
    """Say which data a cell's defense is given, by its method; None where the method does not say."""
    needs = read_method(find_config("defenses", cell.defense).parent).get("needs")
    if not isinstance(needs, Mapping):
        return None
    root, questioned = bool(needs.get("root")), bool(needs.get("questioned"))
    return "both" if root and questioned else "root" if root else "questioned" if questioned else "none"


def reported_of(cell: Cell) -> Reported | None:
    """Give what the paper of a cell's method reports for its attack; only a method that is its paper's has that.

    Raises:
        ValueError: If the method says it in another form.
    """
    path = find_config("defenses", cell.defense)
    said = read_method(path.parent).get("reported")
    setup, attack, _ = cell.titles
    if said is None or path.stem not in (path.parent.name, *_OWN):
        return None
    source, setups, attacks = _parts(said, path.parent / METHOD_FILE)
    if setup not in setups or attack not in attacks:
        return None
    return Reported({key: float(value) for key, value in attacks[attack].items()}, source)


def _parts(said: Any, file: Path) -> tuple[str, list[str], Mapping[str, Mapping[str, float]]]:
    """Take ``reported`` apart."""
    good = isinstance(said, Mapping) and set(said) == {"source", "setups", "attacks"}
    good = good and isinstance(said["source"], str) and isinstance(said["setups"], list)
    good = good and isinstance(said["attacks"], Mapping) and all(map(_are_shares, said["attacks"].values()))
    if not good:
        raise ValueError(
            f"Expected 'reported' in {file} as {{source: TEXT, setups: [SETUP], attacks: {{ATTACK: {{acc: SHARE, asr: "
            f"SHARE}}}}}}, got {said!r}."
        )
    return said["source"], said["setups"], said["attacks"]


def _are_shares(numbers: Any) -> bool:
    return isinstance(numbers, Mapping) and all(
        key in ("acc", "asr", "ra") and type(value) in (int, float) and 0 <= value <= 1
        for key, value in numbers.items()
    )
