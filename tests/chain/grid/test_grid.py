"""A grid from its file to its rows, run in this process."""

import json

import pytest
from cli_parts import refused
from grid_parts import Here, write_grid

from lit_backdoor.board import read_rows
from lit_backdoor.board.rows import Goal
from lit_backdoor.bundle import open_bundle
from lit_backdoor.chain.grid import command
from lit_backdoor.chain.grid.command import run_grid
from lit_backdoor.chain.store import Store
from lit_backdoor.cli import main


@pytest.fixture
def here(monkeypatch):
    engine = Here()
    monkeypatch.setattr(command, "_engine", lambda name, address: engine)
    return engine


def small(folder, **changes):
    defenses = [str(folder / f"tune{number}.yaml") for number in range(2)]
    return write_grid(folder, **{"attacks": ["badnets_3x3"], "defenses": defenses, "seeds": [0], **changes})


def test_grid_runs_shares_its_victim_and_gives_rows(here, tmp_path):
    out = tmp_path / "out"
    rows = run_grid(small(tmp_path, flags=["development"], goal={"asr": 1.0}), out=out)
    assert here.ran == ["mini-badnets_3x3-victim-seed0", "mini-badnets_3x3-tune0-seed0", "mini-badnets_3x3-tune1-seed0"]
    assert [row.status for row in rows] == ["done", "done"]
    assert read_rows(out / "rows.jsonl") == rows
    row = rows[0]
    assert (row.setup, row.attack.name, row.defense.name, row.seed) == ("mini", "badnets_3x3", "tune0", 0)
    assert (row.defense.access, row.defense.target, row.flags) == ("root", "none", ("development",))
    assert row.goal == Goal(asr=1.0)
    assert row.reached
    assert row.reported is None
    assert row.before.acc is not None
    assert row.after.asr is not None
    assert row.seconds["victim"] > 0
    assert row.peak_mb > 0
    assert row.env.threads
    assert row.code.version
    results = [json.loads((out / "cells" / name / "results.json").read_text()) for name in here.ran[1:]]
    assert results[0]["stages"][0]["hash"] == results[1]["stages"][0]["hash"]
    assert results[0]["stages"][0]["status"] == "cached"
    assert not list((out / "stages").iterdir())
    here.ran.clear()
    assert run_grid(small(tmp_path, flags=["development"], goal={"asr": 1.0}), out=out) == rows
    assert not here.ran


def test_failed_cell_leaves_the_others_and_exit_code_1(here, tmp_path, capfd):
    wrong = [
        {"when": {"defense": str(tmp_path / "tune1.yaml")}, "set": {"stages.clean.model.init_args.schedule": "no"}}
    ]
    file = small(tmp_path, overrides=wrong)
    assert main(["grid", file, "--out", str(tmp_path / "out")]) == 1
    rows = read_rows(tmp_path / "out" / "rows.jsonl")
    assert [row.status for row in rows] == ["done", "failed"]
    assert rows[1].error.startswith("exit code 2: ")
    assert "schedule" in (tmp_path / "out" / "logs" / "mini-badnets_3x3-tune1-seed0.log").read_text()
    said = capfd.readouterr().out
    assert "[3/3] mini-badnets_3x3-tune1-seed0: failed" in said
    assert "1 of 2 cells done" in said


def test_dry_run_writes_nothing(here, tmp_path, cache, capfd):
    assert main(["grid", small(tmp_path), "--out", str(tmp_path / "out"), "--dry-run"]) == 0
    said = capfd.readouterr().out
    assert "to run   mini-badnets_3x3-victim-seed0" in said
    assert "blocked  mini-badnets_3x3-tune0-seed0, until there is: mini-badnets_3x3-victim-seed0" in said
    assert not (tmp_path / "out").exists()
    assert not list(cache.iterdir())
    assert not here.ran


def test_mistakes_end_with_one_line(tmp_path, cache, capfd, monkeypatch):
    file, out = small(tmp_path), tmp_path / "out"
    refused(capfd, ["grid", "laptopp"], "Unknown grid 'laptopp'")
    refused(capfd, ["grid", file, "--out", out, "--retries", "-1"], "--retries of 0 or more")
    refused(capfd, ["grid", file, "--out", out, "--address", "auto"], "--address with --engine ray")
    refused(capfd, ["grid", file, "--dry-run", "--retries", "-1"], "--retries of 0 or more")
    refused(capfd, ["grid", file, "--dry-run", "--out", file], "to be a folder, got the file")
    bad = small(tmp_path, overrides=[{"when": {"seed": 0}, "set": {"stages.clen.steps": 3}}])
    refused(capfd, ["grid", bad, "--out", out], "Cell mini-badnets_3x3-tune0-seed0 of the grid", "Did you mean 'clean'")
    bad = small(tmp_path, overrides=[{"when": {"seed": 0}, "set": {"stages.clean.model.init_args.batchnorm": "eval"}}])
    refused(
        capfd, ["grid", bad, "--dry-run"], "Cell mini-badnets_3x3-tune0-seed0 of the grid", "Did you mean 'batch_norm'"
    )
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("mine")
    refused(capfd, ["grid", small(tmp_path), "--out", tmp_path / "mine"], "thesis.txt")
    (cache / "store.json").write_text('{"format": 9}')
    refused(capfd, ["grid", file, "--out", out], "format 1", "got 9")
    (cache / "store.json").unlink()
    monkeypatch.setenv("LIT_BACKDOOR_CACHE", file)
    refused(capfd, ["grid", file, "--out", out], "a folder for the store, got the file", "LIT_BACKDOOR_CACHE")
    refused(capfd, ["cache", "list"], "a folder for the store, got the file")
    monkeypatch.setenv("LIT_BACKDOOR_CACHE", str(tmp_path / "grid.yaml" / "below"))
    refused(capfd, ["grid", file, "--out", out], "can be written", "LIT_BACKDOOR_CACHE")
    assert not out.exists()


def test_ray_that_is_not_installed_is_named(tmp_path, capfd, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    refused(
        capfd,
        ["grid", small(tmp_path), "--out", tmp_path / "out", "--engine", "ray"],
        "pip install 'lit-backdoor[ray]'",
    )


def test_cache_is_listed_and_pruned(here, tmp_path, cache, capfd):
    file = small(tmp_path)
    run_grid(file, out=tmp_path / "out")
    assert main(["cache", "list"]) == 0
    said = capfd.readouterr().out
    assert "PoisonedTraining" in said
    assert "FineTune" in said
    assert "3 bundles" in said
    assert (
        main(
            [
                "cache",
                "prune",
                "--unreachable-from",
                small(tmp_path, exclude=[{"defense": str(tmp_path / "tune1.yaml")}]),
            ]
        )
        == 0
    )
    assert "1 bundles" in capfd.readouterr().out.splitlines()[-1]
    assert len(list((cache / "bundles").iterdir())) == 2
    key = next((cache / "bundles").iterdir()).name
    open_bundle(Store().bundle(key))
    assert main(["cache", "prune", "--larger-than", "0MB", "--dry-run"]) == 0
    assert len(list((cache / "bundles").iterdir())) == 2
    assert main(["cache", "prune", "--older-than", "0s"]) == 0
    assert not list((cache / "bundles").iterdir())
    refused(capfd, ["cache", "prune"], "--older-than 30d")
    refused(capfd, ["cache", "prune", "--older-than", "soon"], "such as 90m, 12h or 30d, got 'soon'")
