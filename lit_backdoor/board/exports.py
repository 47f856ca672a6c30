"""The rows in formats that others read."""

from __future__ import annotations

import csv
import io
import json
import time
from collections.abc import Sequence
from typing import Any

import yaml

from lit_backdoor import __version__
from lit_backdoor.board.cells import ACC_DROP, ASR, Cell, Measure, Setup, setups
from lit_backdoor.board.rows import CLEAN, Row

__all__ = ["every_eval_ever", "latex", "model_index", "table"]

_COLUMNS = (
    "dataset", "backbone", "attack_name", "defense_name", "ratio", "test_acc", "test_asr", "test_ra", "seed",
)  # fmt: skip
_SPECIAL = {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    **{sign: "\\" + sign for sign in "&%$#_{}"},
}  # fmt: skip


def table(rows: Sequence[Row]) -> str:
    """Write CSV in BackdoorBench's columns and ``seed``; shares, empty where a number does not exist."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for row in rows:
        if row.status == "done":
            after = row.after
            attack, defense = _safe(row.attack.name), _safe(row.defense.name)
            data, net = _safe(row.dataset.name or row.setup), _safe(row.model.name)
            writer.writerow([data, net, attack, defense, row.attack.rate, after.acc, after.asr, after.ra, row.seed])
    return file.getvalue()


def _safe(text: str | None) -> str | None:
    """Keep a spreadsheet from taking a name for a formula."""
    return f"'{text}" if text and text[0] in "=+-@\t\r" else text


def latex(rows: Sequence[Row]) -> str:
    r"""Write one ``tabular`` per setup: the median ASR, the median ACC drop, and how many reach the ASR limit."""
    return "\n".join(_tabular(setup) for setup in setups(rows))


def _tabular(setup: Setup) -> str:
    lines = [
        f"% {_tex(setup.name)}: median ASR in percent / median ACC drop in points (runs within the ASR limit / runs)",
        r"\begin{tabular}{l" + "c" * len(setup.attacks) + "}",
        r"\hline",
        " & ".join(["defense", *("clean" if name == CLEAN else _tex(name) for name in setup.attacks)]) + r" \\",
        r"\hline",
    ]
    for defense in setup.defenses:
        cells = [_tex_cell(setup.cell(attack, defense)) for attack in setup.attacks]
        lines.append(" & ".join([_tex(defense), *cells]) + r" \\")
    return "\n".join([*lines, r"\hline", r"\end{tabular}", ""])


def _tex_cell(cell: Cell) -> str:
    asr, drop = cell.spread(ASR), cell.spread(ACC_DROP)
    first = "--" if asr.median is None else f"{100 * asr.median:.1f}"
    last = "--" if drop.median is None else f"{100 * drop.median:.1f}"
    count = f" ({cell.below(ASR)}/{len(asr.values)})" if asr.values else ""
    return f"{first} / {last}{count}"


def _tex(text: str) -> str:
    return "".join(_SPECIAL.get(sign, sign) for sign in " ".join(text.split()))


def model_index(rows: Sequence[Row]) -> str:
    """Write the Hub's ``model-index``: one model per setup and defense, ACC and ASR per attack as its results."""
    models = [
        {"name": f"{setup.name}-{defense}", "results": results}
        for setup in setups(rows)
        for defense in setup.defenses
        if (
            results := [
                _result(setup, attack, defense) for attack in setup.attacks if _measured(setup, attack, defense)
            ]
        )
    ]
    return yaml.safe_dump({"model-index": models}, sort_keys=False, allow_unicode=True)


def _measured(setup: Setup, attack: str, defense: str) -> bool:
    return any(row.status == "done" and row.after.acc is not None for row in setup.cell(attack, defense).rows)


def _result(setup: Setup, attack: str, defense: str) -> dict[str, Any]:
    rows = [row for row in setup.cell(attack, defense).rows if row.status == "done"]
    title = "clean model" if attack == CLEAN else _title(rows[0])
    names = {"ACC": [row.after.acc for row in rows], "ASR": [row.after.asr for row in rows]}
    metrics = [
        {"type": "accuracy", "name": f"{name} ({title})", "value": _summed(found)}
        for name, values in names.items()
        if (found := [value for value in values if value is not None])
    ]
    data = rows[0].dataset.name or setup.name
    return {
        "task": {"type": "image-classification"},
        "dataset": {"type": data, "name": data, "split": "test"},
        "metrics": metrics,
    }


def _title(row: Row) -> str:
    rate = None if row.attack.rate is None else f"{100 * row.attack.rate:g} %"
    target = None if row.attack.target is None else f"target {row.attack.target}"
    return ", ".join([" ".join(part for part in (row.attack.name, rate) if part), *([target] if target else [])])


def _summed(values: Sequence[float]) -> float | str:
    """Give one seed's value as it is, several as text with every value."""
    return round(values[0], 6) if len(values) == 1 else ", ".join(f"{value:.3f}" for value in values)


def every_eval_ever(rows: Sequence[Row]) -> str:
    """Write JSON Lines in the format of Every Eval Ever 0.3.0: one record per cell, ACC drop and ASR as its results."""
    records = [
        record
        for setup in setups(rows)
        for defense in setup.defenses
        for attack in setup.attacks
        if (record := _record(setup, setup.cell(attack, defense)))
    ]
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)


def _record(setup: Setup, cell: Cell) -> dict[str, Any] | None:
    results = [_evaluation(cell, measure) for measure in (ASR, ACC_DROP) if cell.measured(measure)]
    if not results:
        return None
    name = f"{setup.name}-{cell.attack}-{cell.defense}"
    version, now = cell.rows[0].code.version or __version__, str(int(time.time()))
    return {
        "schema_version": "0.3.0", "evaluation_id": f"lit_backdoor/{name}", "retrieved_timestamp": now,
        "source_metadata": {
            "source_name": "lit_backdoor board", "source_type": "evaluation_run",
            "source_organization_name": "lit_backdoor", "evaluator_relationship": "first_party",
        },
        "eval_library": {"name": "lit_backdoor", "version": version},
        "model_info": {"name": name, "id": f"lit_backdoor/{name}"},
        "evaluation_results": results,
    }  # fmt: skip


def _evaluation(cell: Cell, measure: Measure) -> dict[str, Any]:
    spread, row = cell.spread(measure), cell.measured(measure)[0][0]
    uncertainty: dict[str, Any] = {"num_samples": len(spread.values)}
    if spread.deviation is not None:
        uncertainty["standard_deviation"] = round(spread.deviation, 6)
    return {
        "evaluation_name": f"{measure.title} ({'clean model' if cell.attack == CLEAN else _title(row)})",
        "source_data": {"dataset_name": row.dataset.name or row.setup, "source_type": "other"},
        "metric_config": {
            "metric_id": f"lit_backdoor.{measure.name}", "lower_is_better": True, "score_type": "continuous",
            "min_score": 0.0 if measure is ASR else -1.0, "max_score": 1.0,
        },
        "score_details": {
            "score": round(spread.mean or 0.0, 6), "uncertainty": uncertainty,
            "details": {"seeds": ", ".join(str(own.seed) for own, _ in cell.measured(measure)),
                        "values": ", ".join(f"{value:.6f}" for value in spread.values)},
        },
    }  # fmt: skip
