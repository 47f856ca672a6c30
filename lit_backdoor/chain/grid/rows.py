"""The rows of a grid: what its cells found, and why some found nothing."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from lit_backdoor.board import Row, row_of, write_rows
from lit_backdoor.board.rows import Attack, Code, Defense, Goal
from lit_backdoor.chain.grid.graph import Node
from lit_backdoor.chain.grid.methods import access_of, reported_of
from lit_backdoor.chain.store import Store

__all__ = ["collect_rows"]


def collect_rows(nodes: Sequence[Node], out: Path, store: Store, failed: Mapping[str, str]) -> list[Row]:
    """Make a row for each cell, write them to ``OUT/rows.jsonl`` and give them.

    Args:
        nodes: The grid's nodes.
        out: Its folder.
        store: Where it is looked up which cells are done.
        failed: Why nodes failed, by name.
    """
    rows = [_row(node, out, store, failed.get(node.name)) for node in nodes if node.stage is None]
    write_rows(rows, out / "rows.jsonl")
    return rows


def _row(node: Node, out: Path, store: Store, problem: str | None) -> Row:
    status: Literal["missing", "blocked", "failed"]
    cell = node.cell
    setup_name, attack_name, defense_name = cell.titles
    params = dict(text.partition("=")[::2] for text in node.cell.settings)
    common: dict[str, Any] = {
        "command": shlex.join(["lit-backdoor", *cell.words]),  # without where it wrote: that is this machine's
        "flags": cell.flags,
        "id": node.identity[:16],
        "reported": reported_of(cell),
        "goal": Goal(*cell.goal) if cell.goal != (None, None) else None,
    }
    if not node.is_made(out, store):
        status = "missing" if problem is None else "blocked" if problem.startswith("blocked by ") else "failed"
        attack = Attack(attack_name)
        defense = Defense(defense_name, access=access_of(cell), target=node.target, params=params)
        return Row(setup_name, attack, defense, cell.seed, status=status, error=problem, **common)
    results = json.loads((node.folder(out) / "results.json").read_text())
    row = row_of(results, setup=setup_name, **common)
    knows = {"access": results["access"], "selection": results["selection"], "target": node.target}
    made = {stage["name"]: stage["made"] for stage in results["stages"] if stage.get("made")}
    last: dict[str, Any] = next(reversed(made.values()), {})
    return replace(
        row,
        attack=replace(row.attack, name=attack_name),
        defense=replace(row.defense, name=defense_name, **knows, params=params),
        seconds={stage["name"]: made.get(stage["name"], {}).get("seconds") for stage in results["stages"]},
        peak_mb=max((each["peak_mb"] for each in made.values()), default=None),
        code=Code(**last["code"]) if "code" in last else row.code,
        env=replace(row.env, device=last.get("hardware", row.env.device), threads=last.get("threads")),
    )
