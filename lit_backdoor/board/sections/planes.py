"""ACC drop against ASR: one small plane per defense, all on one scale."""

from __future__ import annotations

from typing import Any

from lit_backdoor.board.cells import ACC_DROP, ASR, Setup
from lit_backdoor.board.marks import Dot, plane
from lit_backdoor.board.sections.verdict import reached_of
from lit_backdoor.board.template import Board, Section, render

__all__ = ["planes"]


def planes(board: Board) -> Section | None:
    """Draw every run of every defense."""
    groups = [{"name": setup.name, "plots": _plots(setup)} for setup in board.setups]
    groups = [group for group in groups if group["plots"]]
    if not groups:
        return None
    html = render("planes.html", groups=groups, several=board.several)
    return Section("tradeoff", "Attack success against accuracy lost", html)


def _plots(setup: Setup) -> list[dict[str, Any]]:
    plots = []
    for defense in setup.defenses:
        points = [
            (drop, Dot(asr, row.seed, _style(asr, drop), f"{row.attack.name}, seed {row.seed}: ASR {100 * asr:.1f}"))
            for cell in setup.cells(defense)
            for row, asr in cell.measured(ASR)
            if (drop := row.acc_drop) is not None
        ]
        if points:
            chart = plane(points, (ACC_DROP.low, ACC_DROP.high), (ACC_DROP.most, ASR.most))
            count = "{} of {}".format(*reached_of(setup, defense))
            access = setup.about(defense).access or ""
            plots.append({"name": defense, "chart": chart, "count": count, "access": access})
    return plots


def _style(asr: float, drop: float) -> str:
    return "good" if asr <= ASR.most and drop <= ACC_DROP.most else "bad"
