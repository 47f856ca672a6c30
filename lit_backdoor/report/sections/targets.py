"""What a detector of target classes says of each class."""

from __future__ import annotations

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
            "statistic": float(statistic[label]),
            "width": 100 * min(1.0, float(statistic[label]) / widest) if widest > 0 else 0.0,
            "index": float(index[label]),
            "flagged": label in flagged,
            "true": label == truth,
        }
        for label in order
    ]
    html = render("targets.html", rows=rows, rest=len(statistic) - len(rows), flagged=len(flagged))
    return Section("targets", "What the detector says of each class", html)
