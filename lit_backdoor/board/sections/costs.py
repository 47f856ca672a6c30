"""What a defense costs: seconds of its own stages and peak memory."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

from lit_backdoor.board.cells import Setup
from lit_backdoor.board.marks import Dot, strip
from lit_backdoor.board.rows import Row
from lit_backdoor.board.sections.summary import memory, own_seconds
from lit_backdoor.board.template import Board, Section, render
from lit_backdoor.page.words import DASH, duration

__all__ = ["costs"]


def costs(board: Board) -> Section | None:
    """Draw the seconds and the memory of every run on logarithmic scales."""
    tables = [{"name": setup.name, "lines": lines} for setup in board.setups if (lines := _lines(setup))]
    return (
        Section("costs", "Seconds and memory", render("costs.html", tables=tables, several=board.several))
        if tables
        else None
    )


def _lines(setup: Setup) -> list[dict[str, Any]]:
    time, room = _Scale(setup, own_seconds, duration), _Scale(setup, lambda row: row.peak_mb, memory)
    return [
        {
            "name": defense,
            "access": setup.about(defense).access or "",
            "time": time.of(defense),
            "room": room.of(defense),
        }
        for defense in setup.defenses
        if time.values(defense) or room.values(defense)
    ]


class _Scale:
    """One kind of cost of a setup, on one scale."""

    def __init__(self, setup: Setup, cost: Callable[[Row], float | None], form: Callable[[float], str]) -> None:
        self.setup, self.cost, self.form = setup, cost, form
        found = [value for defense in setup.defenses for _, value in self.values(defense)]
        self.low, self.high = (min(found), max(found)) if found else (1.0, 1.0)

    def values(self, defense: str) -> list[tuple[Row, float]]:
        rows = [row for row in self.setup.of(defense) if row.status == "done"]
        return [(row, value) for row in rows if (value := self.cost(row)) is not None and value > 0]

    def of(self, defense: str) -> dict[str, Any]:
        pairs = self.values(defense)
        if not pairs:
            return {"text": DASH, "strip": None}
        dots = [
            Dot(value, row.seed, "soft", f"{row.attack.name}, seed {row.seed}: {self.form(value)}")
            for row, value in pairs
        ]
        text = self.form(statistics.median(value for _, value in pairs))
        return {"text": text, "strip": strip(dots, self.low, self.high, log=True)}
