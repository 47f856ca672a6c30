"""Every run, and what the rows were made with."""

from __future__ import annotations

from collections import Counter
from typing import Any

from lit_backdoor.board.rows import Row
from lit_backdoor.board.template import Board, Section, render
from lit_backdoor.page.words import DASH, percent

__all__ = ["about", "runs"]

_STATES = {"done": "done", "failed": "failed", "blocked": "blocked", "missing": "not run"}


def runs(board: Board) -> Section:
    """List the rows."""
    lines = [_line(row) for setup in board.setups for row in setup.rows]
    return Section("runs", "Every run", render("runs.html", lines=lines, several=board.several))


def _line(row: Row) -> dict[str, Any]:
    reported = row.reported
    paper = ", ".join(f"{key} {percent(value)}" for key, value in reported.value.items()) if reported else ""
    return {
        "setup": row.setup, "attack": "clean model" if row.clean_model else row.attack.name,
        "defense": row.defense.name, "access": row.defense.access or "", "seed": row.seed,
        "state": _STATES[row.status], "error": row.error or "",
        "before": f"{percent(row.before.acc)} / {percent(row.before.asr)}",
        "after": f"{percent(row.after.acc)} / {percent(row.after.asr)}",
        "target": f"{percent(row.before.acc_target)} → {percent(row.after.acc_target)}",
        "control": f"{percent(row.control.acc)} / {percent(row.control.asr)}",
        "goal": {True: "reached", False: "missed", None: DASH}[row.reached],
        "reported": f"{paper} ({reported.source})" if reported else DASH,
        "command": row.command or "",
    }  # fmt: skip


def about(board: Board) -> Section:
    """Name versions, commits, machines and data of the rows, each with its number of rows."""
    groups: list[tuple[str, list[str | None]]] = [
        ("Code", [_commit(row) for row in board.rows]),
        ("Machine", [row.env.device for row in board.rows]),
        ("torch", [row.env.torch for row in board.rows]),
        ("Data", [row.dataset.name for row in board.rows]),
        ("Net", [row.model.name for row in board.rows]),
        ("Remarks", [flag for row in board.rows for flag in row.flags]),
    ]
    shown = [(title, Counter(str(value) for value in values if value).most_common()) for title, values in groups]
    return Section("about", "How this was measured", render("about.html", groups=[pair for pair in shown if pair[1]]))


def _commit(row: Row) -> str | None:
    parts = [part for part in (row.code.version, row.code.commit) if part]
    return " ".join([*parts, *(["with uncommitted changes"] if row.code.dirty else [])]) or None
