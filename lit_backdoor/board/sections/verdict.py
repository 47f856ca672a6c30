"""The head of the board: what was run, and which defense reached most."""

from __future__ import annotations

from collections import Counter

from markupsafe import Markup

from lit_backdoor.board.cells import ACC_DROP, ASR, Setup
from lit_backdoor.board.template import Board, Section, render
from lit_backdoor.page.words import percent

__all__ = ["verdict"]


def verdict(board: Board) -> Section:
    """Say in a sentence which defense reached both limits most often, in the setup with most runs."""
    states = Counter[str](row.status for row in board.rows)
    flags = Counter(flag for row in board.rows for flag in set(row.flags))
    counts = [
        (len({row.defense.name for row in board.rows}), "defense"),
        (len({row.attack.name for row in board.rows if not row.clean_model}), "attack"),
        (len(board.setups), "setup"),
        (len(board.seeds), "seed"),
    ]
    parts = [f"{count} {word}{'' if count == 1 else 's'}" for count, word in counts]
    parts += [f"{states['done']} of {len(board.rows)} runs finished"]
    parts += [f"{states[name]} {word}" for name, word in _STATES if states[name]]
    parts += [f"{name}: {'all' if flags[name] == len(board.rows) else flags[name]} rows" for name in flags]
    largest = max(board.setups, key=lambda setup: len(setup.rows), default=None)
    return Section("verdict", "", render("verdict.html", sentence=_sentence(board, largest), setting=" · ".join(parts)))


_STATES = (("failed", "failed"), ("blocked", "blocked"), ("missing", "not run"))


def _sentence(board: Board, setup: Setup | None) -> Markup:
    reached = {} if setup is None else {name: reached_of(setup, name) for name in setup.defenses}
    counts = {name: pair for name, pair in reached.items() if pair[1]}
    if setup is None or not counts:
        return Markup("No defense was measured on an attack that took hold.")
    best = max(counts, key=lambda name: (counts[name][0] / counts[name][1], counts[name][1]))
    where = Markup(" on <b>{}</b>").format(setup.name) if board.several else ""
    text = "{} reaches most{}: ASR of at most {} and an ACC drop of at most {} points in <b>{} of {}</b> runs."
    limits = percent(ASR.most, 0), f"{100 * ACC_DROP.most:g}"
    return Markup(text).format(Markup("<b>{}</b>").format(best), where, *limits, *counts[best])


def reached_of(setup: Setup, defense: str) -> tuple[int, int]:
    """Count the runs of a defense that reach both limits, and those that were measured."""
    pairs = [(row, asr, row.acc_drop) for cell in setup.cells(defense) for row, asr in cell.measured(ASR)]
    whole = [(row, asr, drop) for row, asr, drop in pairs if drop is not None]
    return sum(asr <= ASR.limit(row) and drop <= ACC_DROP.limit(row) for row, asr, drop in whole), len(whole)
