"""One process and two give the same."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import tiny
import torch
import yaml
from ddp_parts import as_rank, free_port

from lit_backdoor.bundle import open_bundle
from lit_backdoor.defenses.tac import TACDetection
from lit_backdoor.stages import Evaluation, FineTune, LowestLoss, OracleSelection

ROOT = Path(__file__).resolve().parents[2]


def numbers(trainer, stage, **options):
    found = {}
    for verb in ("validate", "test"):
        getattr(trainer, verb)(stage, datamodule=tiny.data(tiny.attack()), verbose=False, **options)
        found |= {name: float(value) for name, value in trainer.callback_metrics.items()}
    counts = {
        name: [int(value) for value in metric.metric_state.values() if value.dtype == torch.int64]
        for name, metric in stage.evaluation.metrics.items()
    }
    return found, counts


def chosen(trainer, stage):
    trainer.predict(stage, datamodule=tiny.data(tiny.attack()), return_predictions=False)
    return {name: value.clone() for name, value in stage.outcome().tensors.items()}


def gradients(stage, options):
    """The gradients of the first step."""
    kept = {}
    stage.on_before_optimizer_step = lambda optimizer: kept.update(
        {name: weight.grad.clone() for name, weight in stage.classifier.named_parameters()}
    )
    datamodule = tiny.data(tiny.attack(), batch_size=options.pop("batch_size"))
    tiny.trainer(max_steps=1, limit_val_batches=0, **options).fit(stage, datamodule=datamodule)
    return kept


def in_two(rank, world_size, victim, port):
    options = {"strategy": "ddp", "devices": world_size}
    with as_rank(rank, world_size, port):
        return (
            numbers(tiny.trainer(**options), Evaluation(victim)),
            chosen(tiny.trainer(**options), LowestLoss(victim, share=0.2)),
            chosen(tiny.trainer(**options), OracleSelection(victim, share=0.1, precision=0.5)),
            gradients(FineTune(victim, batch_norm="eval"), {**options, "batch_size": 12}),
            chosen(tiny.trainer(**options), TACDetection(victim)),
        )


@pytest.fixture(scope="module")
def both(victim, run_ddp):
    two = run_ddp(in_two, victim, free_port())
    one = (
        numbers(tiny.trainer(), Evaluation(victim)),
        chosen(tiny.trainer(), LowestLoss(victim, share=0.2)),
        chosen(tiny.trainer(), OracleSelection(victim, share=0.1, precision=0.5)),
        gradients(FineTune(victim, batch_norm="eval"), {"batch_size": 24}),
        chosen(tiny.trainer(), TACDetection(victim)),
    )
    return one, two


def test_validate_and_test_count_the_same(both):
    one, two = both
    for rank in two:
        assert rank[0][0].keys() == one[0][0].keys() >= {"val/acc", "val/asr", "test/acc", "test/asr", "test/ra"}
        assert rank[0][0] == pytest.approx(one[0][0], abs=1e-6)


@pytest.mark.parametrize("number", [1, 2])
def test_predict_selects_the_same_rows(both, number):
    one, two = both
    for rank in two:
        assert torch.equal(rank[number]["indices"], one[number]["indices"])
        assert torch.equal(rank[number]["rows"], one[number]["rows"])
        assert torch.allclose(rank[number]["scores"], one[number]["scores"], atol=1e-6)


def test_detector_reports_the_same_on_every_rank(both):
    one, two = both
    for rank in two:
        assert rank[4].keys() == one[4].keys() >= {"statistic", "index", "flagged", "perturbations"}
        assert all(torch.equal(rank[4][name], value) for name, value in one[4].items())


def test_first_gradients_agree_with_frozen_statistics(both):
    one, two = both
    for rank in two:
        assert rank[3].keys() == one[3].keys()
        assert one[3]
        for name, gradient in one[3].items():
            assert torch.allclose(rank[3][name], gradient, atol=1e-5), name
            assert gradient.abs().sum() > 0


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["lightning", "torchrun"])
def test_launched_run_leaves_a_bundle(launcher, tmp_path):
    """Two processes of the command itself; the bundle is one that a single process tests."""
    config = {
        "trainer": {**tiny.QUIET, "devices": 2, "strategy": "ddp", "max_epochs": 1, "default_root_dir": str(tmp_path)},
        "model": tiny.chain()["stages"]["victim"]["model"],
        "data": {"class_path": "lit_backdoor.data.BackdoorDataModule", "init_args": {
            "source": tiny.SIGNS, "batch_size": 16}},
    }  # fmt: skip
    (tmp_path / "stage.yaml").write_text(yaml.safe_dump(config))
    start = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"] if launcher == "torchrun" else []
    command = [sys.executable, *start, "-m", "lit_backdoor", "fit", "--config", "stage.yaml", "--out", "b"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        environment.pop(name, None)
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=280, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Traceback" not in done.stderr
    bundle = open_bundle(tmp_path / "b", "suspect")
    assert json.loads((tmp_path / "b" / "bundle.json").read_text())["stage"].endswith("PoisonedTraining")
    result = tiny.tested(Evaluation(str(bundle.path)), tiny.data())
    assert 0 <= result["test/acc"] <= 1
