"""The store: what one chain made, another finds; of two at once, one makes it."""

import json
import multiprocessing
import os
import shutil
import signal
import time
from pathlib import Path

import pytest
from chain_parts import NAMES, again, lasting, statuses

from lit_backdoor.bundle import open_bundle
from lit_backdoor.chain import testing
from lit_backdoor.chain.compose import compose
from lit_backdoor.chain.run import ChainRun
from lit_backdoor.chain.store import Store


@pytest.fixture
def filled(finished, cache):
    """A store that has everything of the finished chain."""
    out, results = finished
    for stage in results["stages"]:
        shutil.copytree(out / stage["name"], cache / "bundles" / stage["key"])
    return cache


def victim_of(file):
    chain = compose(file)
    chain["stages"] = {"victim": chain["stages"]["victim"]}
    chain["summary"] = {}
    return chain


def test_every_stage_is_found_in_the_store(file, finished, filled, tmp_path):
    results = again(file, tmp_path / "out", use_cache=True)
    assert statuses(results) == ["cached"] * 4
    assert lasting(results) == lasting(finished[1])
    assert [stage["made"] for stage in results["stages"]] == [stage["made"] for stage in finished[1]["stages"]]
    assert lasting(again(file, tmp_path / "out", use_cache=True)) == lasting(results)  # started again, or resumed


def test_run_with_stages_from_the_store_goes_on_after_it_was_stopped(file, finished, filled, tmp_path, monkeypatch):
    kept = filled / "bundles" / finished[1]["stages"][-1]["key"]
    kept.rename(filled / "aside")  # the last stage is to be made
    with monkeypatch.context() as patch:
        patch.setattr("lit_backdoor.chain.run.ChainRun._launch", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            again(file, tmp_path / "out", use_cache=True)
    (filled / "aside").rename(kept)
    results = again(file, tmp_path / "out", use_cache=True)
    assert statuses(results) == ["cached"] * 4
    assert lasting(results) == lasting(finished[1])


def test_inputs_of_a_bundle_from_the_store_are_where_this_chain_has_them(file, filled, tmp_path):
    chain = compose(file)
    chain["stages"]["first"] = chain["stages"].pop("victim")
    chain["stages"] = {"first": chain["stages"].pop("first"), **chain["stages"]}
    for stage in chain["stages"].values():
        stage["inputs"] = {k: "first" if v == "victim" else v for k, v in stage.get("inputs", {}).items()}
    chain["summary"] = {"before": "first"}
    assert statuses(ChainRun(chain, "tiny", tmp_path / "out").run()) == ["cached"] * 4
    inputs = open_bundle(tmp_path / "out" / "clean").info["inputs"]
    assert {name: source["path"] for name, source in inputs.items()} == {
        "suspect": "../first",
        "generator": "../generate",
    }


def test_tests_of_a_bundle_are_not_repeated(file, finished, filled, tmp_path, monkeypatch):
    tested = []
    original = testing.test_bundle
    monkeypatch.setattr(
        testing, "test_bundle", lambda bundle, *a: tested.append(bundle.path.name) or original(bundle, *a)
    )
    first = again(file, tmp_path / "one", use_cache=True)
    assert tested == NAMES
    assert lasting(again(file, tmp_path / "two", use_cache=True)) == lasting(first)
    assert tested == NAMES
    again(file, tmp_path / "three", ["data.init_args.source.init_args.test_per_class=9"], use_cache=True)
    assert len(tested) == 8


def test_stages_are_put_into_the_store_and_a_damaged_one_is_replaced(file, finished, cache, tmp_path):
    stored = cache / "bundles" / finished[1]["stages"][0]["key"]
    stored.mkdir(parents=True)
    (stored / "bundle.json").write_text("{")
    assert statuses(ChainRun(victim_of(file), "tiny", tmp_path / "out").run()) == ["ran"]
    assert open_bundle(stored).hash == finished[1]["stages"][0]["hash"]
    assert Store().made(finished[1]["stages"][0]["key"])["seconds"] > 0


def test_store_that_may_not_be_read_is_done_without(file, finished, cache, tmp_path):
    (cache / "bundles").write_text("a file")
    (cache / "locks").write_text("a file")
    results = ChainRun(victim_of(file), "tiny", tmp_path / "out").run()
    assert statuses(results) == ["ran"]
    assert lasting(results) == lasting(finished[1])[:1]


def test_store_of_a_newer_version_is_refused(file, cache, tmp_path):
    (cache / "store.json").write_text('{"format": 2}')
    with pytest.raises(ValueError, match=r"format 1 .*, got 2, .*LIT_BACKDOOR_CACHE"):
        again(file, tmp_path / "out", use_cache=True)
    assert not (tmp_path / "out").exists()


def test_identities_lead_to_the_keys_of_what_ran(file, cache, tmp_path):
    from lit_backdoor.chain.keys import stage_identities

    chain = victim_of(file)
    [stage] = ChainRun(chain, "tiny", tmp_path / "out").run()["stages"]
    assert Store().key_of(stage_identities(chain)["victim"]) == stage["key"]


# Several processes.


def chain_in_process(file, out, cache, holds):
    """Run a chain; one that ``holds`` keeps the lock until somebody else has said that it waits."""
    os.environ["LIT_BACKDOOR_CACHE"] = cache
    lines, waiting = [], Path(cache) / "waiting"

    def say(line):
        lines.append(line)
        if "waiting" in line:
            waiting.touch()

    run = ChainRun(victim_of(file), "tiny", Path(out), say=say)
    launch = run._launch
    run._launch = lambda *a: (wait_for(waiting) if holds else None, launch(*a))
    results = run.run()
    (Path(out) / "said.json").write_text(json.dumps([statuses(results), lines]))


def said(out):
    return json.loads((out / "said.json").read_text())


@pytest.fixture(scope="module")
def processes():
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["lit_backdoor.chain.run", "lit_backdoor.lightning_cli"])
    return context


def wait_for(path):
    for _ in range(600):
        if path.exists():
            return
        time.sleep(0.1)
    pytest.fail(f"{path} did not come")


@pytest.mark.slow
def test_of_two_chains_at_once_one_trains_and_the_other_waits(file, cache, processes, tmp_path):
    first = processes.Process(target=chain_in_process, args=(file, str(tmp_path / "a"), str(cache), True))
    second = processes.Process(target=chain_in_process, args=(file, str(tmp_path / "b"), str(cache), False))
    first.start()
    wait_for(tmp_path / "a" / ".runs" / "victim" / "key")
    second.start()
    first.join(120), second.join(120)
    assert said(tmp_path / "a")[0] == ["ran"]
    assert said(tmp_path / "b")[0] == ["cached"]
    assert any("waiting" in line for line in said(tmp_path / "b")[1])


def test_dead_holder_loses_the_lock(file, cache, processes, tmp_path):
    first = processes.Process(target=chain_in_process, args=(file, str(tmp_path / "a"), str(cache), True))
    first.start()
    wait_for(tmp_path / "a" / ".runs" / "victim" / "key")
    os.kill(first.pid, signal.SIGKILL)
    first.join(60)
    chain_in_process(file, tmp_path / "b", str(cache), False)
    assert said(tmp_path / "b")[0] == ["ran"]
