"""The stages of the chain, what each left and how long it took."""

from __future__ import annotations

from typing import Any

from lit_backdoor.page.words import label, number
from lit_backdoor.report.run import Run
from lit_backdoor.report.template import Section, render

__all__ = ["stages"]


def stages(run: Run) -> Section | None:
    """List the stages."""
    if not run.stages:
        return None
    rows = [{**stage, "numbers": _numbers(stage["metrics"])} for stage in run.stages]
    html = render("stages.html", stages=rows, total=sum(stage["seconds"] for stage in run.stages))
    return Section("stages", "Stages", html)


def _numbers(metrics: dict[str, Any]) -> list[tuple[str, str]]:
    return [(label(name), number(value, name)) for name, value in metrics.items()]
