"""A chain that ran: its results, and what a second start does again."""

import json
import math
import shutil

import pytest
import tiny
import torch
from chain_parts import NAMES, again, lasting, statuses

from lit_backdoor.bundle import open_bundle
from lit_backdoor.chain import run as running
from lit_backdoor.chain import testing
from lit_backdoor.chain.compose import compose
from lit_backdoor.chain.run import ChainRun


def test_results_have_the_documented_shape(finished):
    out, results = finished
    assert json.loads((out / "results.json").read_text()) == results
    assert set(results) == {
        "format", "chain", "setup", "attack", "seed", "data", "counts", "versions", "hardware", "stages", "summary",
        "access", "selection", "model", "precision",
    }  # fmt: skip
    assert (results["format"], results["chain"], results["seed"]) == (1, "tiny", 5)
    data = results["data"]
    assert {"source", "attack", "target", "rate", "rate_of", "n_train", "n_root"} <= set(data)
    assert (data["target"], data["rate"], data["rate_of"], data["n_train"], data["n_root"]) == (0, 0.1, "set", 96, 24)
    assert (results["model"], results["precision"]) == ("resnet18", "32-true")
    assert data["source"].endswith("SyntheticSigns")
    assert data["attack"]
    assert results["counts"] == {"clean": 32, "triggered": 24}
    for stage, name in zip(results["stages"], NAMES, strict=True):
        assert {"name", "kind", "class_path", "status", "seconds", "key", "inputs", "bundle", "metrics", "made"} <= set(
            stage
        )
        assert stage["name"] == stage["bundle"] == name
        bundle = open_bundle(out / stage["bundle"], stage["kind"])
        assert (bundle.hash, bundle.info["key"]) == (stage["hash"], stage["key"])
        assert stage["status"] == "ran"
        assert stage["seconds"] > 0
    assert [stage["kind"] for stage in results["stages"]] == ["suspect", "selection", "generator", "suspect"]
    assert results["stages"][2]["inputs"] == {"model.suspect": "victim", "data.suspicious": "select"}
    metrics = {stage["name"]: stage["metrics"] for stage in results["stages"]}
    assert set(metrics["victim"]) == set(metrics["clean"]) == {"acc", "acc_target", "asr", "ra"}
    assert set(metrics["generate"]) == {"dof"}
    assert set(metrics["select"]) == {"selection_precision", "selection_recall", "selection_f1"}
    summary = results["summary"]
    assert set(summary) == {"before", "after", "der", "dem", "stages"}
    assert summary["stages"] == {"before": "victim", "after": "clean"}
    assert summary["before"] == metrics["victim"]
    assert summary["after"] == metrics["clean"]
    drop = {key: metrics["victim"][key] - metrics["clean"][key] for key in ("acc", "asr")}
    assert summary["der"] == pytest.approx((max(0, drop["asr"]) - max(0, drop["acc"]) + 1) / 2)


def test_numbers_come_from_a_test_of_the_bundle(finished):
    out, results = finished
    net = open_bundle(out / "victim").build()
    chain = compose_data(results)
    hits = total = 0
    with torch.no_grad():
        for batch in chain.loader("clean"):
            batch = chain.images(batch)
            hits += int((net(batch["image"]).argmax(1) == batch["label"]).sum())
            total += len(batch["label"])
    assert results["stages"][0]["metrics"]["acc"] == pytest.approx(hits / total)


def compose_data(results):
    from lit_backdoor.chain.testing import build_data

    return build_data({**tiny.chain()["data"], "init_args": {"source": tiny.SIGNS, "seed": results["seed"]}})


def test_folder_holds_bundles_results_and_working_files_alone(finished):
    out, _ = finished
    assert {path.name for path in out.iterdir()} == {*NAMES, "results.json", ".runs", ".lock", ".lit-backdoor"}
    assert not list(out.rglob("*.part"))
    history = json.loads((out / "victim" / "history.json").read_text())
    assert [row["epoch"] for row in history] == [0, 1, 2]
    assert all(math.isfinite(row["train/loss"]) for row in history)


def test_second_start_does_nothing_again(file, finished):
    out, results = finished
    before = {path: path.stat().st_mtime_ns for path in out.rglob("weights.safetensors")}
    second = again(file, out)
    assert statuses(second) == ["cached"] * 4
    assert lasting(second) == lasting(results)
    assert before == {path: path.stat().st_mtime_ns for path in out.rglob("weights.safetensors")}


@pytest.mark.parametrize("damage", ["missing", "truncated", "empty"])
def test_damaged_bundle_is_made_anew_and_what_follows_stays(file, finished, copy, damage):
    weights = copy / "generate" / "weights.safetensors"
    if damage == "missing":
        shutil.rmtree(copy / "generate")
    elif damage == "truncated":
        weights.write_bytes(weights.read_bytes()[:-9])
    else:
        (copy / "generate" / "bundle.json").write_text("")
    results = again(file, copy)
    assert statuses(results)[:2] == ["cached", "cached"]
    assert statuses(results)[2] in ("ran", "resumed")
    assert statuses(results)[3] == "cached"
    assert lasting(results) == lasting(finished[1])


def test_changed_setting_runs_that_stage_and_what_depends_on_it(file, copy):
    results = again(file, copy, ["stages.generate.model.init_args.alpha=0.5"])
    assert statuses(results) == ["cached", "cached", "ran", "ran"]


def test_numbers_are_measured_anew_where_the_data_s_code_changed(file, finished, copy, monkeypatch):
    """A trigger may be another at test time alone: no weights depend on that."""
    tested = []
    original = testing.test_bundle
    monkeypatch.setattr(
        testing, "test_bundle", lambda bundle, *a: tested.append(bundle.path.name) or original(bundle, *a)
    )
    assert lasting(again(file, copy)) == lasting(finished[1])
    assert not tested
    monkeypatch.setattr(running, "code_of", lambda *nodes: ["other code"])
    assert lasting(again(file, copy)) == lasting(finished[1])
    assert tested == NAMES


def test_stage_that_ends_by_its_steps_is_complete(file, tmp_path):
    chain = compose(file, ["stages.victim.trainer.max_steps=2"])
    chain["stages"] = {"victim": chain["stages"]["victim"]}
    chain["summary"] = {}
    assert statuses(ChainRun(chain, "tiny", tmp_path / "out", use_cache=False).run()) == ["ran"]


def test_other_folder_gives_the_same_bundles(file, finished, tmp_path):
    assert lasting(again(file, tmp_path / "deep" / "other")) == lasting(finished[1])


def test_clean_chain_has_null_where_there_is_no_number(file, tmp_path):
    settings = ["data.init_args.attack=null", "stages.victim.trainer.max_epochs=1"]
    chain = compose(file, settings)
    chain["stages"] = {"victim": chain["stages"]["victim"]}
    chain["summary"] = {"before": "victim"}
    results = ChainRun(chain, "clean", tmp_path / "out", use_cache=False).run()
    assert results["data"]["attack"] is None
    assert results["data"]["target"] is None
    assert results["counts"]["triggered"] == 0
    assert results["summary"]["after"] is results["summary"]["der"] is results["summary"]["dem"] is None
    before = results["summary"]["before"]
    assert before["acc"] is not None
    assert before["asr"] is before["ra"] is None
