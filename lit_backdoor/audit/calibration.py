"""The probability that a model is backdoored: a logistic regression over the detectors' scores of reference models."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss, log_loss, roc_auc_score
from sklearn.model_selection import LeaveOneOut, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

__all__ = ["LEAST", "REFERENCE", "calibrate", "read_reference"]

REFERENCE = Path(__file__).parent / "reference.json"
LEAST = 5  # reference models of each kind, clean and poisoned

Row = Mapping[str, Any]


def read_reference(path: Path = REFERENCE) -> list[dict[str, Any]]:
    """Read the reference models: ``setup``, ``net``, ``attack``, ``seed``, ``classes``, ``poisoned``, ``scores``."""
    return list(json.loads(path.read_text())["rows"])


def calibrate(
    scores: Mapping[str, float], tops: Mapping[str, int | None], classes: int, rows: Sequence[Row]
) -> tuple[float | None, dict[str, Any]]:
    """Give the probability that a model is backdoored, and what it was calibrated on.

    The regression is fitted anew on the detectors at hand, as if half of all models were backdoored, whatever the share
    among the reference models. Where too few reference models have the scores of all of them, the detector that most
    models lack is left out, and so on.

    Where several detectors count, so does the share of pairs of them that name the same class: detectors of different
    kinds rarely do so by chance.

    Args:
        scores: The model's score by detector.
        tops: The class that each detector finds most suspicious.
        classes: The model's number of classes.
        rows: The reference models.

    Returns:
        The probability, None where there are too few reference models; and a description: the detectors and models it
        is from, ``log_loss``, ``brier`` and ``auroc`` of models left out one at a time, ``base_log_loss`` of always
        saying one half, and ``warnings``.
    """
    used, known = _usable(scores, rows)
    poisoned = np.array([bool(row["poisoned"]) for row in known])
    said: dict[str, Any] = {
        "detectors": used,
        "models": len(known),
        "poisoned": int(poisoned.sum()),
        "setups": sorted({row["setup"] for row in known}),
        "nets": sorted({row["net"] for row in known}),
        "attacks": sorted({row["attack"] for row in known if row["attack"]}),
        "log_loss": None,
        "base_log_loss": None,
        "brier": None,
        "auroc": None,
        "warnings": [],
    }
    if not used:
        said["warnings"] = [
            f"There is no probability: it takes {LEAST} clean and {LEAST} poisoned reference models with the scores of "
            "the detectors that ran. The verdict is the detectors' own."
        ]
        return None, said
    table = np.array([_features(row["scores"], _tops(row), used) for row in known])
    model = make_pipeline(StandardScaler(), LogisticRegression(class_weight="balanced"))
    held_out: NDArray[Any] = cross_val_predict(model, table, poisoned, cv=LeaveOneOut(), method="predict_proba")[:, 1]
    weight = np.where(poisoned, 0.5 / poisoned.mean(), 0.5 / (1 - poisoned.mean()))
    said |= {
        "log_loss": float(log_loss(poisoned, held_out, sample_weight=weight, labels=[False, True])),
        "base_log_loss": math.log(2),
        "brier": float(brier_score_loss(poisoned, held_out, sample_weight=weight)),
        "auroc": float(roc_auc_score(poisoned, held_out)),
        "warnings": _unlike(scores, used, classes, known),
    }
    own = np.array([_features(scores, tops, used)])
    return float(model.fit(table, poisoned).predict_proba(own)[0, 1]), said


def _usable(scores: Mapping[str, float], rows: Sequence[Row]) -> tuple[list[str], list[Row]]:
    """Choose the detectors, and the reference models that have the scores of all of them; none where too few do."""
    used = list(scores)
    while used:
        known = [row for row in rows if all(row["scores"].get(name) is not None for name in used)]
        if min(sum(bool(row["poisoned"]) is kind for row in known) for kind in (True, False)) >= LEAST:
            return used, known
        used.remove(min(used, key=lambda name: sum(row["scores"].get(name) is not None for row in rows)))
    return [], []


def _features(scores: Mapping[str, float], tops: Mapping[str, int | None], used: Sequence[str]) -> list[float]:
    """Give the scores and, of several detectors, the share of pairs that name the same class."""
    same = [tops.get(one) is not None and tops.get(one) == tops.get(other) for one, other in combinations(used, 2)]
    return [*(scores[name] for name in used), *([sum(same) / len(same)] if same else [])]


def _tops(row: Row) -> dict[str, int | None]:
    return {name: found.get("top") for name, found in row.get("found", {}).items()}


def _unlike(scores: Mapping[str, float], used: Sequence[str], classes: int, rows: Sequence[Row]) -> list[str]:
    """Say in what the model is unlike the reference models."""
    said = []
    if left := [name for name in scores if name not in used]:
        said.append(f"The scores of {', '.join(left)} do not count: too few reference models have them.")
    for name in used:
        known = [row["scores"][name] for row in rows]
        low, high = min(known), max(known)
        if not low <= scores[name] <= high:
            said.append(
                f"The score of {name}, {scores[name]:.2f}, is outside the reference models' {low:.2f} to {high:.2f}."
            )
    counts = [row["classes"] for row in rows]
    if not min(counts) <= classes <= max(counts):
        said.append(f"The model has {classes} classes, the reference models have {min(counts)} to {max(counts)}.")
    return said
