"""How numbers and names are written in a report. What does not exist is an en dash, never a zero."""

# ruff: noqa: RUF001  (typographic signs are meant)

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = [
    "DASH",
    "METRICS",
    "call",
    "count",
    "duration",
    "label",
    "number",
    "percent",
    "points",
    "short",
    "signed",
    "title",
]

DASH = "–"
METRICS = {
    "acc": ("ACC", "clean test images classified correctly"),
    "acc_target": ("ACC, target class", "clean test images of the attacker’s class that are classified correctly"),
    "asr": ("ASR", "triggered test images that get the attacker’s label"),
    "ra": ("RA", "triggered test images that still get their true label"),
    "der": ("DER", "defense effectiveness rating: ASR gained against ACC lost, 0 to 1"),
    "dem": ("DEM", "defense efficacy measure: the mean of relative ACC kept and relative ASR removed"),
    "dof": ("DoF", "degree of feature collisions: cosine of the suspect’s logits, triggered against generated"),
    "feature_distance": ("FD", "feature distance: the recovered trigger’s features against the true one’s"),
    "f1": ("Detection F1", "harmonic mean of precision and recall of flagged inputs"),
    "auroc": ("Detection AUROC", "how well the score of inputs separates triggered from clean ones"),
    "target_class": ("Target class", "the class that the defense takes for the attacker’s, where it takes one"),
    "selection_precision": ("Selection precision", "share of the selected rows that are poisoned"),
    "selection_recall": ("Selection recall", "share of the poisoned rows that are selected"),
    "selection_f1": ("Selection F1", "harmonic mean of selection precision and recall"),
}
_SHARES = ("acc", "acc_target", "asr", "ra", "selection_precision", "selection_recall", "selection_f1")


def label(name: str) -> str:
    """Give a metric's written name."""
    return METRICS[name][0] if name in METRICS else name.replace("_", " ")


def percent(value: float | None, digits: int = 1) -> str:
    """Write a share in [0, 1]."""
    return DASH if value is None else f"{100 * value:.{digits}f}%"


def points(before: float | None, after: float | None) -> str:
    """Write a change of shares in percentage points, with a sign; it is the difference of the shares as written."""
    if before is None or after is None:
        return DASH
    change = round(round(100 * after, 1) - round(100 * before, 1), 1)
    return f"{'+' if change > 0 else '−' if change < 0 else '±'}{abs(change):.1f}"


def signed(value: float, form: str) -> str:
    """Write a number in a format of Python's, with a minus sign where it is negative."""
    return f"{value:{form}}".replace("-", "−")


def number(value: Any, name: str = "") -> str:
    """Write a number that a stage left; long lists are only counted."""
    if value is None:
        return DASH
    if isinstance(value, float):
        return percent(value) if name in _SHARES else f"{value:.3f}" if 0.001 <= abs(value) < 100 else f"{value:.3g}"
    if isinstance(value, int) and not isinstance(value, bool):
        return count(value)
    if isinstance(value, list | dict):
        items = value if isinstance(value, list) else list(value.values())
        return ", ".join(number(item) for item in items) if 0 < len(items) <= 4 else f"{len(items)} values"
    return str(value)


def count(value: int | None) -> str:
    """Write a count with separators of thousands."""
    return DASH if value is None else f"{value:,}"


def duration(seconds: float) -> str:
    """Write a time span."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"


def short(class_path: str) -> str:
    """Give a class's name without its modules."""
    return class_path.rpartition(".")[2]


def call(described: Any) -> str:
    """Write a recipe as the call that makes the object; arguments that are None are left out."""
    if isinstance(described, Mapping):
        if set(described) == {"class_path", "init_args"}:
            arguments = (f"{k}={call(v)}" for k, v in described["init_args"].items() if v is not None)
            return f"{short(described['class_path'])}({', '.join(arguments)})"
        return "{" + ", ".join(f"{key}: {call(value)}" for key, value in described.items()) + "}"
    if isinstance(described, list):
        return "[" + ", ".join(call(item) for item in described) + "]"
    return f"{described:g}" if isinstance(described, float) else str(described)


def title(results: Mapping[str, Any]) -> str:
    """Name a run by its chain, its data and its seed; a demo is one on the embedded signs only."""
    chain, source = str(results["chain"]), short(results["data"]["source"])
    named = source if chain == "demo" and source != "SyntheticSigns" else f"{chain} on {source}"
    return f"{named}, seed {results['seed']}"
