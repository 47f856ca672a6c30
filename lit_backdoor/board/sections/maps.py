"""Heat maps attack by defense of ASR and of ACC drop: every seed a dot, the median, and how many reach the limit."""

from __future__ import annotations

from typing import Any

from lit_backdoor.board.cells import ACC_DROP, ASR, Cell, Measure, Setup, Spread
from lit_backdoor.board.marks import Dot, strip
from lit_backdoor.board.rows import CLEAN
from lit_backdoor.board.template import Board, Section, render
from lit_backdoor.page.words import DASH, percent, signed

__all__ = ["asr_map", "cell_view", "drop_map", "numbers"]

_STATES = {"failed": "failed", "blocked": "blocked", "missing": "not run"}
_EMPTIED = 0.1  # drop of accuracy on the attacker's class that a cell names


def asr_map(board: Board) -> Section | None:
    """Show ASR after the defense; clean models have none."""
    return _map(board, ASR, "asr", "Attack success after the defense", clean=False)


def drop_map(board: Board) -> Section | None:
    """Show the drop of ACC, on clean models as well."""
    return _map(board, ACC_DROP, "acc", "Accuracy that the defense costs", clean=True)


def _map(board: Board, measure: Measure, name: str, title: str, clean: bool) -> Section | None:
    maps = [found for setup in board.setups if (found := _table(setup, measure, clean))["heads"]]
    if not maps:
        return None
    limit = percent(measure.most, 0) if measure is ASR else f"{100 * measure.most:g} points"
    return Section(
        name, title, render("maps.html", maps=maps, several=board.several, measure=measure.name, limit=limit)
    )


def _table(setup: Setup, measure: Measure, clean: bool) -> dict[str, Any]:
    attacks = [attack for attack in setup.attacks if clean or attack != CLEAN]
    attacks = [
        attack for attack in attacks if any(_shown(setup.cell(attack, name), measure) for name in setup.defenses)
    ]
    defenses = [name for name in setup.defenses if any(_shown(setup.cell(attack, name), measure) for attack in attacks)]
    lines = [
        {
            "name": defense,
            "access": setup.about(defense).access or "",
            "cells": [cell_view(setup.cell(attack, defense), measure) for attack in attacks],
        }
        for defense in defenses
    ]
    return {"name": setup.name, "heads": [_head(setup, attack) for attack in attacks], "lines": lines}


def _shown(cell: Cell, measure: Measure) -> bool:
    """Whether a cell has something to say; a detector without a cleaned suspect has not."""
    return any(row.status != "done" or measure.value(row) is not None for row in cell.rows)


def _head(setup: Setup, attack: str) -> dict[str, str]:
    """Name an attack, and how well it works without a defense."""
    if attack == CLEAN:
        return {"name": "clean model", "note": "no attack"}
    before = {
        row.seed: row.before.asr for row in setup.rows if row.attack.name == attack and row.before.asr is not None
    }
    return {"name": attack, "note": f"{percent(Spread(tuple(before.values())).median, 0)} before"}


def cell_view(cell: Cell, measure: Measure) -> dict[str, Any]:
    """Say what a cell shows: its state, its median and count, its dots, and remarks."""
    pairs, spread = cell.measured(measure), cell.spread(measure)
    title = "clean model" if cell.attack == CLEAN else cell.attack
    view: dict[str, Any] = {"attack": title, "state": "", "notes": _remarks(cell, measure), "strip": None, "range": ""}
    if not _shown(cell, measure):
        return view | {"state": "empty"}
    if spread.median is None:
        return view | {"text": _absent(cell), "state": "absent"}
    dots = [
        Dot(
            value,
            row.seed,
            "good" if value <= measure.limit(row) else "bad",
            f"seed {row.seed}: {written(value, measure)}",
        )
        for row, value in pairs
    ]
    if measure is ASR:
        dots += [
            Dot(
                row.control.asr,
                row.seed,
                "control",
                f"seed {row.seed}, fine-tuning: {written(row.control.asr, measure)}",
            )
            for row, _ in pairs
            if row.control.asr is not None
        ]
    most = measure.limit(pairs[0][0])
    good = spread.median <= most
    return view | {
        "text": written(spread.median, measure), "state": "good" if good else "bad",
        "heat": round(100 * min(max((spread.median - most) / (measure.high - most), 0.0), 1.0)),
        "count": f"{cell.below(measure)}/{len(pairs)}", "limit": most, "high": measure.high,
        "strip": strip(dots, measure.low, measure.high, most), "range": _range(spread, measure),
    }  # fmt: skip


def written(value: float, measure: Measure) -> str:
    """Write a share in percent, a drop in points."""
    return f"{100 * value:.1f}" if measure is ASR else signed(100 * value, ".1f")


def _range(spread: Spread, measure: Measure) -> str:
    if spread.ends is None or len(spread.values) < 3:
        return ""
    low, high = (written(end, measure) for end in spread.ends)
    return f"{low} to {high}"


def _absent(cell: Cell) -> str:
    """Say why a cell has no number."""
    if cell.untaken:
        values = [row.before.asr for row in cell.untaken if row.before.asr is not None]
        return f"did not take ({percent(Spread(tuple(values)).median, 0)})"
    states = [_STATES[row.status] for row in cell.rows if row.status in _STATES]
    return " and ".join(dict.fromkeys(states)) or "no number"


def _remarks(cell: Cell, measure: Measure) -> list[str]:
    found = []
    measured = bool(cell.measured(measure))
    if measured:
        found += [f"{cell.count(status)} {word}" for status, word in _STATES.items() if cell.count(status)]
        found += [f"{len(cell.untaken)} did not take"] if cell.untaken else []
    if measured and measure is ASR:
        lost = cell.emptied
        found += [f"class {signed(-100 * lost, '.0f')}"] if lost is not None and lost > _EMPTIED else []
        found += ["as fine-tuning"] if cell.as_control and cell.below(ASR) else []
    return found


def numbers(board: Board) -> Section | None:
    """List every cell: each seed's value, median, range, mean and deviation."""
    lines = [
        {"setup": setup.name, "defense": defense, "attack": attack, "access": setup.about(defense).access or "",
         "seeds": [row.seed for row, _ in cell.measured(measure)], "title": measure.title,
         **_statistics(cell, measure)}
        for setup in board.setups
        for defense in setup.defenses
        for attack in setup.attacks
        for cell in (setup.cell(attack, defense),)
        for measure in (ASR, ACC_DROP)
        if cell.measured(measure)
    ]  # fmt: skip
    if not lines:
        return None
    return Section("cells", "Every cell in numbers", render("numbers.html", lines=lines, several=board.several))


def _statistics(cell: Cell, measure: Measure) -> dict[str, Any]:
    spread, values = cell.spread(measure), [written(value, measure) for _, value in cell.measured(measure)]
    enough = len(values) > 2
    mean = f"{written(spread.mean or 0.0, measure)} ± {100 * (spread.deviation or 0):.1f}" if enough else DASH
    return {
        "values": ", ".join(values), "below": f"{cell.below(measure)} of {len(values)}", "mean": mean,
        "median": written(spread.median or 0.0, measure) if enough else DASH, "range": _range(spread, measure) or DASH,
    }  # fmt: skip
