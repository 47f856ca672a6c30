"""What training did, epoch by epoch."""

from __future__ import annotations

from typing import Any

from markupsafe import Markup

from lit_backdoor.page.svg import Line, line_chart, nice_ticks
from lit_backdoor.page.words import label, percent
from lit_backdoor.report.run import Run
from lit_backdoor.report.template import Section, render

__all__ = ["history"]

_SHARES = ("acc", "asr", "ra", "dof")
_HUNDRED = [(share / 4, f"{25 * share}%") for share in range(5)]


def history(run: Run) -> Section | None:
    """Draw ACC, ASR, RA and DoF of each stage that kept them, and the training loss of those."""
    measured, losses = [], []
    for stage in run.stages:
        epochs = run.history(stage)
        if epochs and (chart := _shares(run, stage, epochs)):
            measured.append({"name": stage["name"], "chart": chart})
        if epochs and (chart := _loss(stage, epochs)):
            losses.append({"name": stage["name"], "chart": chart})
    if not measured and not losses:
        return None
    return Section("training", "Epoch by epoch", render("history.html", measured=measured, losses=losses))


def _series(epochs: list[dict[str, float]], key: str) -> list[tuple[float, float]]:
    """Give (finished epochs, value) where there is a value."""
    return [(epoch["epoch"] + 1, epoch[key]) for epoch in epochs if epoch.get(key) is not None]


def _shares(run: Run, stage: dict[str, Any], epochs: list[dict[str, float]]) -> Markup | None:
    origin = _origin(run, stage)
    lines = []
    for name in _SHARES:
        points = _series(epochs, f"val/{name}")
        if points:
            start = origin.get(name) if name != "dof" else None
            first = (0.0, start) if start is not None else None
            value = percent(points[-1][1]) if name != "dof" else f"{points[-1][1]:.2f}"
            lines.append(Line(label(name), name, [(x, max(0.0, y)) for x, y in points], first, value))
    if not lines:
        return None
    said = "; ".join(f"{line.name} ends at {line.value}" for line in lines)
    return line_chart(lines, _HUNDRED, "epochs", f"Stage {stage['name']}, test numbers by epoch: {said}.")


def _loss(stage: dict[str, Any], epochs: list[dict[str, float]]) -> Markup | None:
    points = _series(epochs, "train/loss")
    if len(points) < 2:
        return None
    ys = [y for _, y in points]
    ticks = nice_ticks(min(0.0, *ys), max(ys), 4)
    line = Line("loss", "loss", points, value=f"{ys[-1]:.3g}")
    alt = f"Stage {stage['name']}, training loss by epoch: from {ys[0]:.3g} to {ys[-1]:.3g}."
    return line_chart([line], [(tick, f"{tick:g}") for tick in ticks], "epochs", alt)


def _origin(run: Run, stage: dict[str, Any]) -> dict[str, Any]:
    """Give the numbers of the suspect that a stage changes: its line starts there."""
    if stage["kind"] != "suspect":
        return {}
    names = set(stage["inputs"].values())
    sources = [s for s in run.stages if s["name"] in names and s["kind"] == "suspect"]
    return dict(sources[0]["metrics"]) if sources else {}
