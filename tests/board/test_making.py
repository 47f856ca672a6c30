import json
import shutil

import pytest
from board_parts import row

from lit_backdoor.board import gather, row_of, write_rows
from lit_backdoor.board.rows import Attack, Code, Defense


def results(**more):
    suspect = {"acc": 0.9, "acc_target": 0.9, "asr": 0.98, "ra": 0.01}
    clean = {"acc": 0.88, "acc_target": 0.85, "asr": 0.04, "ra": 0.8}
    names = ("victim", "detect", "clean", "control", "relapse_clean")
    detected = {
        "top_class": 3,
        "anomaly_index": 4.0,
        "flagged_classes": 1.0,
        "target_found": 1.0,
        "feature_distance": 2.0,
    }
    metrics = (suspect, detected, clean, {**clean, "asr": 0.9}, {**clean, "asr": 0.3})
    stages = [
        {"name": name, "kind": "targets" if name == "detect" else "suspect", "class_path": "x", "status": "trained",
         "seconds": 2.0, "key": "k", "hash": "h", "inputs": {"target": "detect"} if name == "clean" else {},
         "bundle": name, "metrics": numbers}
        for name, numbers in zip(names, metrics, strict=True)
    ]  # fmt: skip
    return {
        "format": 1, "chain": "tac", "seed": 3, "hardware": "2 CPU cores",
        "data": {"source": "lit_backdoor.data.SyntheticSigns", "attack": "PatchTrigger", "policy": "AllToOne",
                 "target": 3, "rate": 0.1, "n_train": 100, "n_root": 10},
        "counts": {"clean": 50, "triggered": 45}, "versions": {"lit_backdoor": "0.1.0", "torch": "2.9"},
        "stages": stages, "summary": {"before": suspect, "after": clean, "der": 0.96, "dem": 0.97}, **more,
    }  # fmt: skip


def test_a_row_holds_what_the_results_say():
    made = row_of(
        results(), setup="signs", attack=Attack("badnets"), command="lit-backdoor chain tac", flags=("development",)
    )
    assert (made.before.asr, made.after.asr, made.control.asr, made.relapse.clean, made.relapse.poisoned) == (
        0.98, 0.04, 0.9, 0.3, None,
    )  # fmt: skip
    assert made.defense == Defense("tac", target="detected")
    assert (made.after.n, made.after.n_triggered, made.der, made.seconds["clean"]) == (50, 45, 0.96, 2.0)
    assert made.detection.score == 4.0
    assert made.detection.flagged
    assert made.detection.found
    assert made.metrics["detect"]["feature_distance"] == 2.0
    assert made.command == "lit-backdoor chain tac"
    assert row_of(results(), code=Code(commit="abc", dirty=True)).code.dirty


def test_a_row_says_what_the_defense_knew():
    made = row_of(results(access="root", selection="oracle"))
    assert made.defense == Defense("tac", "root", "oracle", "detected")


def test_equal_configurations_have_equal_ids():
    assert row_of(results()).id == row_of(results()).id
    assert row_of(results()).id != row_of(results(seed=4)).id
    assert row_of(results(), id="given").id == "given"


def test_folders_of_grids_and_of_chains_are_gathered(tmp_path):
    (tmp_path / "grid").mkdir()
    write_rows([row(seed=0), row(seed=1)], tmp_path / "grid" / "rows.jsonl")
    (tmp_path / "runs" / "tac-seed3").mkdir(parents=True)
    (tmp_path / "runs" / "tac-seed3" / "results.json").write_text(json.dumps(results()))
    rows = gather([tmp_path / "grid", tmp_path / "runs", tmp_path / "runs" / "tac-seed3"])
    assert [(own.defense.name, own.seed) for own in rows] == [("pgbd", 0), ("pgbd", 1), ("tac", 3)]
    shutil.copy(tmp_path / "grid" / "rows.jsonl", tmp_path / "other.jsonl")
    assert len(gather([tmp_path / "other.jsonl"])) == 2


def test_a_finished_row_is_kept_over_a_failed_one(tmp_path):
    write_rows([row(asr=0.3), row(status="failed"), row(asr=0.2)], tmp_path / "rows.jsonl")
    [kept] = gather([tmp_path])
    assert kept.after.asr == 0.2


def test_folders_without_results_and_damaged_results_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="found neither"):
        gather([tmp_path])
    (tmp_path / "results.json").write_text('{"format": 1}')
    with pytest.raises(ValueError, match="damaged"):
        gather([tmp_path])
