"""What a detector of target classes says of each class."""

from __future__ import annotations

import math

from lit_backdoor.page.words import signed
from lit_backdoor.report.run import Run
from lit_backdoor.report.template import Section, render

__all__ = ["targets"]

_SHOWN = 12


def targets(run: Run) -> Section | None:
    """List the classes by the last detector's statistic, the smallest first; those flagged stand out."""
    bundle = run.last("targets")
    if bundle is None:
        return None
    tensors = bundle.tensors()
    statistic, index, flagged = tensors["statistic"], tensors["index"], set(tensors["flagged"].tolist())
    order = statistic.nan_to_num(nan=float("inf")).argsort(stable=True)[:_SHOWN].tolist()
    finite = statistic[statistic.isfinite()]
    widest = float(finite.max()) if len(finite) else 1.0
    attack = run.data.attack
    truth = None if attack is None else attack.single_target
    rows = [
        {
            "name": run.class_name(label),
            "label": label,
            "statistic": _written(float(statistic[label]), ".3g"),
            "width": _width(float(statistic[label]), widest),
            "index": _written(float(index[label]), ".2f"),
            "flagged": label in flagged,
            "true": label == truth,
        }
        for label in order
    ]
    html = render(
        "targets.html",
        rows=rows,
        rest=len(statistic) - len(rows),
        flagged=len(flagged),
        missing=int((~statistic.isfinite()).sum()),
        classes=len(statistic),
    )
    return Section("targets", "What the detector says of each class", html)


def _width(value: float, widest: float) -> float:
    """Give a bar's width in percent; none where nothing was found."""
    return 100 * value / widest if widest > 0 and math.isfinite(value) else 0.0


def _written(value: float, form: str) -> str:
    """Write a number; a class for which nothing was found has none."""
    return signed(value, form) if math.isfinite(value) else "none found"
