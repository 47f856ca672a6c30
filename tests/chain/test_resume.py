"""A chain that was killed or stopped, and started again."""

import contextlib
import json
import multiprocessing
import signal
import sys
import threading
from pathlib import Path

import pytest
import torch
from chain_parts import NAMES, again, lasting, statuses

from lit_backdoor.bundle import open_bundle
from lit_backdoor.chain.compose import compose
from lit_backdoor.chain.folders import newest_checkpoint
from lit_backdoor.chain.run import ChainRun
from lit_backdoor.errors import DivergedError, RunStoppedError

sys.path.append(str(Path(__file__).parent))
import moments  # found by its bare name in child processes too

MOMENTS = [
    ("lit_backdoor.stages.poisoned_training.PoisonedTraining.training_step", 5),  # in the second epoch
    ("lit_backdoor.bundle.place", 1),  # trained, the bundle not yet in its place
    ("lit_backdoor.chain.run.read_history", 1),
    ("lit_backdoor.chain.testing.test_bundle", 2),
    ("lit_backdoor.defenses.atclean.generator.CollisionGenerator.on_save_checkpoint", 2),
    ("lit_backdoor.stages.unlearning.UnlearningFineTune.losses", 2),
    ("lit_backdoor.chain.run.collect", 1),
]


@pytest.fixture(scope="module")
def processes():
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["lit_backdoor.chain.run", "lit_backdoor.lightning_cli"])
    return context


@pytest.mark.slow
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


def test_checkpoint_cut_off_by_a_kill_is_passed_over(tmp_path):
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    torch.save({"epoch": 0}, folder / "epoch=0.ckpt")
    whole = (folder / "epoch=0.ckpt").read_bytes()
    (folder / "epoch=1.ckpt").write_bytes(whole[: len(whole) // 2])
    assert newest_checkpoint(tmp_path).name == "epoch=0.ckpt"


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


def test_checkpoint_planted_in_a_chain_s_folder_removes_nothing(file, finished, tmp_path, monkeypatch):
    from lit_backdoor.stages import PoisonedTraining

    out, precious = tmp_path / "out", tmp_path / "thesis.ckpt"
    precious.write_text("mine")

    def stop(self):
        if self.current_epoch == 1:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(PoisonedTraining, "on_train_epoch_start", stop)
        with pytest.raises(SystemExit):
            again(file, out)
    [path] = (out / ".runs" / "victim" / "checkpoints").iterdir()
    content = torch.load(path, weights_only=True)
    [state] = content["callbacks"].values()
    state.update(best_model_path=str(precious), last_model_path=str(precious))
    torch.save(content, path)
    chain = compose(file)
    chain["stages"] = {"victim": chain["stages"]["victim"]}
    chain["summary"] = {}
    results = ChainRun(chain, "tiny", out, use_cache=False).run()
    assert statuses(results) == ["resumed"]
    assert precious.read_text() == "mine"
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
