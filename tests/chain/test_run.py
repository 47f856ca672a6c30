import contextlib
import fcntl
import json
import math
import multiprocessing
import shutil
import signal
import sys
import threading
from pathlib import Path

import pytest
import tiny
import torch

from lit_backdoor.bundle import open_bundle
from lit_backdoor.chain import run as running
from lit_backdoor.chain import testing
from lit_backdoor.chain.compose import compose
from lit_backdoor.chain.run import ChainRun
from lit_backdoor.errors import DivergedError, RunStoppedError

sys.path.append(str(Path(__file__).parent))
import moments  # found by its bare name in child processes too

NAMES = ["victim", "select", "generate", "clean"]


def again(file, out, settings=(), **options):
    return ChainRun(compose(file, settings), "tiny", out, **{"use_cache": False, **options}).run()


def statuses(results):
    return [stage["status"] for stage in results["stages"]]


def lasting(results):
    return [(stage["name"], stage["hash"], stage["key"], stage["metrics"]) for stage in results["stages"]]


@pytest.fixture
def copy(finished, tmp_path):
    """A finished chain to be spoiled."""
    shutil.copytree(finished[0], tmp_path / "copy")
    return tmp_path / "copy"


# A chain that ran.


def test_results_have_the_documented_shape(finished):
    out, results = finished
    assert json.loads((out / "results.json").read_text()) == results
    assert set(results) == {
        "format", "chain", "seed", "data", "counts", "versions", "hardware", "stages", "summary",
    }  # fmt: skip
    assert (results["format"], results["chain"], results["seed"]) == (1, "tiny", 5)
    data = results["data"]
    assert {"source", "attack", "target", "rate", "n_train", "n_root"} <= set(data)
    assert (data["target"], data["rate"], data["n_train"], data["n_root"]) == (0, 0.1, 96, 24)
    assert data["source"].endswith("SyntheticSigns")
    assert data["attack"]
    assert results["counts"] == {"clean": 32, "triggered": 24}
    for stage, name in zip(results["stages"], NAMES, strict=True):
        assert {"name", "kind", "class_path", "status", "seconds", "key", "inputs", "bundle", "metrics"} <= set(stage)
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
    assert {path.name for path in out.iterdir()} == {*NAMES, "results.json", ".runs", ".lock"}
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


# The cache.


def test_victims_are_found_in_the_cache(file, finished, cache, tmp_path):
    shutil.copytree(finished[0] / "victim", cache / "bundles" / finished[1]["stages"][0]["key"])
    chain = compose(file)
    chain["stages"] = {"victim": chain["stages"]["victim"]}
    chain["summary"] = {}
    results = ChainRun(chain, "tiny", tmp_path / "out").run()
    assert statuses(results) == ["cached"]
    assert lasting(results) == lasting(finished[1])[:1]


def test_victims_are_put_into_the_cache_and_a_damaged_one_is_replaced(file, finished, cache, tmp_path):
    chain = compose(file)
    chain["stages"] = {"victim": chain["stages"]["victim"]}
    chain["summary"] = {}
    cached = cache / "bundles" / finished[1]["stages"][0]["key"]
    cached.mkdir(parents=True)
    (cached / "bundle.json").write_text("{")
    assert statuses(ChainRun(chain, "tiny", tmp_path / "out").run()) == ["ran"]
    assert open_bundle(cached).hash == finished[1]["stages"][0]["hash"]


# One at a time, in one process.


def test_folder_that_another_run_writes_is_refused(file, copy):
    with (copy / ".lock").open("r+") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(ValueError, match="Another run is writing"):
            again(file, copy)
    assert statuses(again(file, copy)) == ["cached"] * 4


def test_several_processes_are_refused(file, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match=r"A chain is one process.*--launcher"):
        again(file, tmp_path / "out")


def test_out_that_is_a_file_is_refused(file, tmp_path):
    (tmp_path / "out").write_text("mine")
    with pytest.raises(ValueError, match="to be a folder"):
        again(file, tmp_path / "out")


@pytest.mark.parametrize(
    ("trainer", "count"),
    [
        ({"devices": 1}, 1),
        ({"devices": "1"}, 1),
        ({"devices": 2}, 2),
        ({"devices": [0, 1]}, 2),
        ({"accelerator": "cpu"}, 1),
        ({"accelerator": "cpu", "devices": "auto"}, 1),
        ({"devices": 1, "num_nodes": 2}, 2),
        ({"devices": "0,1"}, 2),
    ],
)
def test_processes_of_a_trainer(trainer, count):
    assert running._processes(trainer) == count


def test_several_devices_start_a_command_of_their_own(file, finished, tmp_path, monkeypatch):
    """In process, DDP would start the whole chain again in each of its processes."""
    started = []

    def spawn(self, arguments):
        started.append(arguments)

    monkeypatch.setattr(ChainRun, "_spawn", spawn)
    with pytest.raises(RunStoppedError, match="Stage 'victim' was stopped before it was complete"):
        again(file, tmp_path / "out", ["trainer.devices=2"])
    [[verb, option, config]] = started
    assert (verb, option) == ("fit", "--config")
    assert Path(config).is_file()


# Killed and started again.

MOMENTS = [
    ("lit_backdoor.stages.poisoned_training.PoisonedTraining.training_step", 5),  # in the second epoch
    ("lit_backdoor.bundle._replace", 1),  # trained, the bundle not yet in its place
    ("lit_backdoor.chain.run._history", 1),
    ("lit_backdoor.chain.testing.test_bundle", 2),
    ("lit_backdoor.defenses.atclean.generator.CollisionGenerator.on_save_checkpoint", 2),
    ("lit_backdoor.stages.fine_tune.UnlearningFineTune.lesson", 2),
    ("lit_backdoor.chain.run.collect", 1),
]


@pytest.fixture(scope="module")
def processes():
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["lit_backdoor.chain.run", "lit_backdoor.lightning_cli"])
    return context


def test_killed_at_any_moment_equals_uninterrupted(file, finished, processes, tmp_path):
    out = tmp_path / "out"
    for moment, number in MOMENTS:
        child = processes.Process(target=moments.run, args=(file, str(out), moment, number))
        child.start()
        child.join(120)
        assert child.exitcode == -signal.SIGKILL, f"not killed at {moment}"
        assert not (out / "results.json").exists()
    results = again(file, out)
    assert statuses(results) == ["cached"] * 4
    assert lasting(results) == lasting(finished[1])
    for name in NAMES:
        assert json.loads((out / name / "history.json").read_text()) == json.loads(
            (finished[0] / name / "history.json").read_text()
        )


@pytest.mark.parametrize("end", ["1,4,2e-", "1,4,\0\0"])
def test_log_whose_last_line_a_kill_cut_off_is_read_up_to_it(tmp_path, end):
    (tmp_path / "logs" / "version_0").mkdir(parents=True)
    (tmp_path / "logs" / "version_0" / "metrics.csv").write_text(f"epoch,step,train/loss\n0,2,0.5\n{end}")
    assert running._history(tmp_path)[0] == {"epoch": 0, "train/loss": 0.5}


def test_copy_that_fills_the_disk_is_taken_away(tmp_path, monkeypatch):
    def full(source, part):
        part.mkdir()
        (part / "weights.safetensors").write_bytes(b"some")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copytree", full)
    with pytest.raises(OSError, match="No space"):
        running._copy(tmp_path, tmp_path / "cache")
    assert not list(tmp_path.iterdir())


def test_cache_that_may_not_be_read_is_done_without(file, tmp_path, monkeypatch):
    def refuse(folder):
        raise PermissionError(13, "Permission denied", str(folder))

    monkeypatch.setattr(running, "open_bundle", refuse)
    assert ChainRun(compose(file), "tiny", tmp_path / "out")._found("key", tmp_path / "out" / "victim", True) is None


def test_checkpoint_cut_off_by_a_kill_is_passed_over(tmp_path):
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    torch.save({"epoch": 0}, folder / "epoch=0.ckpt")
    whole = (folder / "epoch=0.ckpt").read_bytes()
    (folder / "epoch=1.ckpt").write_bytes(whole[: len(whole) // 2])
    assert running._checkpoint(tmp_path).name == "epoch=0.ckpt"


def test_stopped_stage_is_resumed(file, finished, tmp_path, monkeypatch):
    """Whoever stops a stage from within, the next start goes on from the last epoch."""
    from lit_backdoor.stages import PoisonedTraining

    class Stop(Exception):
        pass

    def step(self, batch, batch_idx):
        if self.current_epoch == 2:
            raise Stop
        return original(self, batch, batch_idx)

    original = PoisonedTraining.training_step
    with monkeypatch.context() as patch:
        patch.setattr(PoisonedTraining, "training_step", step)
        with pytest.raises(Stop):
            again(file, tmp_path / "out")
    chain = compose(file)
    chain["stages"] = {"victim": chain["stages"]["victim"]}
    chain["summary"] = {}
    results = ChainRun(chain, "tiny", tmp_path / "out", use_cache=False).run()
    assert statuses(results) == ["resumed"]
    assert lasting(results) == lasting(finished[1])[:1]


def test_terminated_run_stops_and_is_resumed(file, finished, tmp_path, monkeypatch):
    """SIGTERM, as a cluster sends it."""
    from lit_backdoor.stages import PoisonedTraining

    original = PoisonedTraining.training_step

    def step(self, batch, batch_idx):
        if self.current_epoch == 2:
            signal.raise_signal(signal.SIGTERM)
        return original(self, batch, batch_idx)

    with monkeypatch.context() as patch:
        patch.setattr(PoisonedTraining, "training_step", step)
        with pytest.raises((RunStoppedError, SystemExit)):
            again(file, tmp_path / "out")
    assert threading.current_thread() is threading.main_thread()
    chain = compose(file)
    chain["stages"] = {"victim": chain["stages"]["victim"]}
    chain["summary"] = {}
    assert statuses(ChainRun(chain, "tiny", tmp_path / "out", use_cache=False).run()) == ["resumed"]


def test_diverged_stage_says_so_and_leaves_no_bundle(file, tmp_path):
    chain = compose(file, ["stages.victim.model.init_args.optimizer={class_path: torch.optim.SGD, init_args: {lr: 1e30}}",
                           "trainer.precision=32-true"])  # fmt: skip
    with pytest.raises(DivergedError, match=r"PoisonedTraining became"):
        ChainRun(chain, "tiny", tmp_path / "out", use_cache=False).run()
    assert not (tmp_path / "out" / "victim").exists()
    with contextlib.suppress(FileNotFoundError):
        open_bundle(tmp_path / "out" / "victim")
        pytest.fail("a diverged run left a bundle")
