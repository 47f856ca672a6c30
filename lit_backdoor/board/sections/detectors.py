"""Detectors of models: how well they tell poisoned from clean ones."""

from __future__ import annotations

from typing import Any

from lit_backdoor.board.ranks import DetectorScores, detector_scores
from lit_backdoor.board.template import Board, Section, render
from lit_backdoor.page.words import DASH, percent

__all__ = ["detectors"]


def detectors(board: Board) -> Section | None:
    """Score every detector of every setup."""
    found = [
        _line(setup.name, scores)
        for setup in board.setups
        for defense in setup.defenses
        if (scores := detector_scores(setup, defense)) is not None
    ]
    if not found:
        return None
    decisions = any(line["decisions"] for line in found)
    html = render("detectors.html", lines=found, several=board.several, decisions=decisions)
    return Section("detectors", "Is the model backdoored?", html)


def _line(setup: str, scores: DetectorScores) -> dict[str, Any]:
    return {
        "setup": setup, "name": scores.defense, "models": f"{scores.poisoned} + {scores.clean}",
        "log_loss": _number(scores.log_loss), "brier": _number(scores.brier), "auroc": _number(scores.auroc),
        "flagged": percent(scores.flagged, 0), "alarms": percent(scores.alarms, 0), "decisions": scores.decisions,
        "found": f"{scores.found} of {scores.asked}" if scores.asked else DASH,
    }  # fmt: skip


def _number(value: float | None) -> str:
    return DASH if value is None else f"{value:.2f}"
