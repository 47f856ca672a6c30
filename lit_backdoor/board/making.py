"""Rows from ``results.json``, and the rows of whole folders."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from lit_backdoor.board.rows import (
    CLEAN,
    Attack,
    Code,
    Dataset,
    Defense,
    Detection,
    Env,
    Model,
    Numbers,
    Relapse,
    Row,
    read_rows,
)  # fmt: skip

__all__ = ["detection_of", "gather", "row_of"]

_CONTROL = "control"
_RELAPSE = {"clean": "relapse_clean", "poisoned": "relapse_poisoned"}  # stages that a grid adds to a chain
_NUMBERS = ("acc", "acc_target", "asr", "ra")


def row_of(
    results: Mapping[str, Any],
    *,
    setup: str | None = None,
    attack: Attack | None = None,
    defense: Defense | None = None,
    **more: Any,
) -> Row:
    """Build the row of a finished chain.

    Args:
        results: The contents of its ``results.json``.
        setup: Name of the setup; by default the results' own, else the name of the data source.
        attack: The attack as configured; by default as far as the results know it.
        defense: The defense as configured; by default named like the chain.
        **more: Further fields of `Row`, which the results do not know: ``command``, ``code``, ``flags``, ….
    """
    data, stages = results["data"], {stage["name"]: stage for stage in results["stages"]}
    source, versions = str(data["source"]).rpartition(".")[2], results["versions"]
    made: dict[str, Any] = {
        "setup": setup or results.get("setup") or source,
        "attack": attack or _attack(results),
        "defense": defense or _defense(results),
        "seed": results["seed"],
        "code": Code(versions["lit_backdoor"]),
        "env": Env(
            versions.get("torch"), versions.get("lightning"), versions.get("python"), results["hardware"],
            results.get("precision"), results.get("threads"),
        ),
        "dataset": Dataset(source, n_train=data["n_train"], n_root=data["n_root"], split_seed=results["seed"]),
        "model": Model(results.get("model")),
        **{role: _numbers(results, results["summary"][role]) for role in ("before", "after")},
        "control": _numbers(results, _metrics(stages, _CONTROL) or None),
        "der": results["summary"]["der"], "dem": results["summary"]["dem"],
        "detection": _detection(results),
        "relapse": Relapse(**{key: _metrics(stages, name).get("asr") for key, name in _RELAPSE.items()}),
        "seconds": {name: stage["seconds"] for name, stage in stages.items()},
        "metrics": _others(stages),
        **more,
    }  # fmt: skip
    row = Row(**made)
    return row if row.id else Row(**{**made, "id": _identity(row)})


def gather(folders: Iterable[Path]) -> list[Row]:
    """Read all rows below folders: their ``rows.jsonl``, and ``results.json`` of chains that no such file covers.

    Of several rows of one cell and seed the last finished one counts.

    Args:
        folders: Folders of grids, of chains, of ``*.jsonl``, or such files themselves.

    Raises:
        FileNotFoundError: If a folder is missing or holds none of them.
        ValueError: If a file is damaged.
    """
    found: dict[tuple[Any, ...], Row] = {}
    for folder in folders:
        rows = _read(folder)
        if not rows:
            raise FileNotFoundError(
                f"Expected rows.jsonl or results.json in {folder}, found neither. Give the folder of a grid or of a "
                "chain: lit-backdoor board runs/my_grid."
            )
        for row in rows:
            settings = json.dumps([row.attack.params, row.defense.params], sort_keys=True)
            key = (row.setup, row.attack.name, row.attack.target, row.defense.name, settings, row.seed)
            if key not in found or row.status == "done" or found[key].status != "done":
                found[key] = row
    return list(found.values())


def _read(path: Path) -> list[Row]:
    if path.is_file():
        return read_rows(path)
    own = path / "rows.jsonl"
    files = (
        [own]
        if own.is_file()
        else sorted({*path.glob("*.jsonl"), *path.glob("*.jsonl.gz"), *path.glob("*/rows.jsonl")})
    )
    if files:
        return [row for file in files for row in read_rows(file)]
    rows = []
    for file in sorted({*path.glob("results.json"), *path.glob("*/results.json"), *path.glob("*/*/results.json")}):
        try:
            rows.append(row_of(json.loads(file.read_text(encoding="utf-8"), parse_constant=lambda _: None)))
        except (LookupError, TypeError, AttributeError, ValueError, RecursionError) as error:
            raise ValueError(f"Expected {file} as a chain wrote it; it is damaged ({error!r}). Run it again.") from None
    return rows


def _attack(results: Mapping[str, Any]) -> Attack:
    data = results["data"]
    trigger = data["attack"]
    name = results.get("attack") or (CLEAN if trigger is None else str(trigger).removesuffix("Trigger").lower())
    return Attack(name, trigger, data["policy"], data["rate"], data.get("rate_of"), data["target"])


def _defense(results: Mapping[str, Any]) -> Defense:
    name = results.get("defense") or results["chain"]
    return Defense(name, results.get("access"), results.get("selection"), _target(results))


def _target(results: Mapping[str, Any]) -> Any:
    """Say where the class that the defense takes for the attacker's comes from, as far as the wiring tells."""
    kinds = {stage["name"]: stage["kind"] for stage in results["stages"]}
    used = {kinds.get(source) for stage in results["stages"] for source in stage["inputs"].values()}
    return "detected" if "targets" in used else None


def _numbers(results: Mapping[str, Any], metrics: Mapping[str, Any] | None) -> Numbers:
    if metrics is None:
        return Numbers()
    counts = results["counts"]
    shares = {name: metrics.get(name) for name in _NUMBERS}
    return Numbers(**shares, n=counts.get("clean"), n_triggered=counts.get("triggered"))


def _metrics(stages: Mapping[str, Mapping[str, Any]], name: str) -> Mapping[str, Any]:
    return dict(stages[name]["metrics"]) if name in stages else {}


def _detection(results: Mapping[str, Any]) -> Detection | None:
    """Take the last report of target classes; a class out of line is what makes a model suspicious."""
    reports: Sequence[Mapping[str, Any]] = [stage for stage in results["stages"] if stage["kind"] == "targets"]
    if not reports:
        return None
    return detection_of(reports[-1]["metrics"])


def detection_of(metrics: Mapping[str, Any]) -> Detection:
    """Read what a detector of target classes says of a model from the numbers of its stage."""
    top, found, flagged = (metrics.get(name) for name in ("top_class", "target_found", "flagged_classes"))
    return Detection(
        score=metrics.get("anomaly_index"),
        probability=metrics.get("probability"),
        flagged=metrics.get("target_class") is not None if flagged is None else flagged > 0,
        top=None if top is None else int(top),
        found=None if found is None else bool(found),
    )


def _others(stages: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Keep the numbers that have no place of their own."""
    kept = {
        name: {key: value for key, value in stage["metrics"].items() if key not in _NUMBERS}
        for name, stage in stages.items()
    }
    return {name: metrics for name, metrics in kept.items() if metrics}


def _identity(row: Row) -> str:
    """Hash what the results know of the configuration, where the chain's own hash is not given."""
    parts = ("setup", "attack", "defense", "seed", "dataset", "model")
    record = {item.name: row.record()[item.name] for item in fields(row) if item.name in parts}
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()[:16]
