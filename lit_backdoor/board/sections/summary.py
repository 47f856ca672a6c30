"""One line per defense: its rank, what it reached, its harm, relapse and cost."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from typing import Any

from lit_backdoor.board.cells import ACC_DROP, Setup
from lit_backdoor.board.marks import Dot, interval, strip
from lit_backdoor.board.ranks import Rank, ranks
from lit_backdoor.board.rows import CLEAN, Row
from lit_backdoor.board.sections.verdict import reached_of
from lit_backdoor.board.template import Board, Section, render
from lit_backdoor.page.words import DASH, duration, percent, signed

__all__ = ["lines", "memory", "own_seconds", "summary"]


def summary(board: Board) -> Section | None:
    """List the defenses of each setup by mean rank."""
    if not any(row.status == "done" for row in board.rows):
        return None
    tables = [{"name": setup.name, "lines": lines(setup)} for setup in board.setups]
    return Section("defenses", "Defenses", render("summary.html", tables=tables, several=board.several, clean=CLEAN))


def lines(setup: Setup) -> list[dict[str, Any]]:
    """Describe the defenses of a setup as text and drawings, the best mean rank first."""
    found = ranks(setup)
    names = sorted(setup.defenses, key=lambda name: found[name].mean if name in found else float("inf"))
    return [_line(setup, name, found.get(name)) for name in names]


def _line(setup: Setup, name: str, rank: Rank | None) -> dict[str, Any]:
    rows = setup.of(name)
    done = [row for row in rows if row.status == "done"]
    reached, measured = reached_of(setup, name)
    defense = setup.about(name)
    marks = {"target": {"given": "target given", "detected": "target detected"}, "selection": {"oracle": "oracle"}}
    notes = [
        defense.access and f"{defense.access} data",
        *(marks[key].get(getattr(defense, key) or "") for key in marks),
    ]
    drops = [value for row in done if row.took and (value := row.acc_drop) is not None]
    return {
        "name": name,
        "access": defense.access or "",
        "notes": [note.replace("none data", "no data") for note in notes if note],
        "rank": None if rank is None else f"{rank.mean:.1f}",
        "rank_note": "" if rank is None else _interval(rank),
        "rank_strip": None if rank is None else interval(rank.mean, rank.ends, (1, rank.of)),
        "reached": f"{reached} of {measured}" if measured else DASH,
        "drop": _points(_median(drops)),
        "harm": _points(_median([value for row in done if row.clean_model and (value := row.acc_drop) is not None])),
        "harm_strip": _harm(done),
        "relapse": [_share([row.relapse.clean for row in done]), _share([row.relapse.poisoned for row in done])],
        "seconds": _written([own_seconds(row) for row in done], duration),
        "memory": _written([row.peak_mb for row in done], memory),
    }  # fmt: skip


def _interval(rank: Rank) -> str:
    if rank.ends is None:
        return "on 1 attack" if rank.attacks == 1 else f"on {rank.attacks} attacks"
    return f"{rank.ends[0]:.1f}{DASH}{rank.ends[1]:.1f}"


def _harm(rows: Sequence[Row]) -> Any:
    dots = [
        Dot(
            drop, row.seed, "good" if drop <= ACC_DROP.limit(row) else "bad", f"seed {row.seed}: {_points(drop)} points"
        )
        for row in rows
        if row.clean_model and (drop := row.acc_drop) is not None
    ]
    return strip(dots, ACC_DROP.low, ACC_DROP.high, ACC_DROP.most) if dots else None


def own_seconds(row: Row) -> float | None:
    """Add the seconds of the defense's own stages: without the victim, the control and the relapse test."""
    own = [
        seconds
        for name, seconds in row.seconds.items()
        if name not in ("victim", "control") and not name.startswith("relapse") and seconds is not None
    ]
    return sum(own) if own else None


def memory(megabytes: float) -> str:
    """Write an amount of memory."""
    return f"{megabytes / 1000:.1f} GB" if megabytes >= 1000 else f"{megabytes:.0f} MB"


def _median(values: Sequence[float]) -> float | None:
    return statistics.median(values) if values else None


def _points(value: float | None) -> str:
    return DASH if value is None else signed(100 * value, ".1f")


def _share(values: Sequence[float | None]) -> str:
    return percent(_median([value for value in values if value is not None]), 0)


def _written(values: Sequence[float | None], form: Callable[[float], str]) -> str:
    middle = _median([value for value in values if value is not None])
    return DASH if middle is None else form(middle)
