"""What a chain checks of all its stages before the first one starts."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lit_backdoor.chain.compose import compose
from lit_backdoor.chain.run import ChainRun

EVALUATION = "{class_path: lit_backdoor.stages.Evaluation}"
PGBD = "{class_path: lit_backdoor.defenses.pgbd.PGBD, init_args: {target: [1, 2, 3]}}"
UNLEARNING = "{class_path: lit_backdoor.defenses.btidbf.BTIDBFUnlearning, init_args: {rounds: 1}}"


@pytest.mark.parametrize(
    "settings",
    [
        ["stages.clean.model.init_args.batch_norm=some"],
        ["stages.clean.data.init_args.batch_size=0"],
        [f"stages.clean.model={UNLEARNING}", "stages.clean.inputs={model.suspect: victim}"],
    ],
)
def test_wrong_last_stage_shows_before_the_first_starts(file, settings, tmp_path):
    with pytest.raises((SystemExit, ValueError)):
        ChainRun(compose(file, settings), "tiny", tmp_path / "out", use_cache=False).run()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("37", "target of stage 'clean'.*got 37 of 4 classes"),
        ("-1", "got -1 of 4 classes"),
        ("truck", "a class number, or another stage's finding: --set stages.clean.inputs.model.target=STAGE.*'truck'"),
    ],
)
def test_plan_refuses_a_target_that_is_no_class(file, target, message, tmp_path):
    tuned = f"{{class_path: lit_backdoor.defenses.tac.TACFineTune, init_args: {{target: {target}}}}}"
    settings = [f"stages.clean.model={tuned}", "stages.clean.inputs={model.suspect: victim}"]
    with pytest.raises(ValueError, match=message):
        ChainRun(compose(file, settings), "tiny", tmp_path / "out").plan()


def test_plan_refuses_a_run_that_leaves_no_bundle(file, tmp_path):
    with pytest.raises(ValueError, match="no fast_dev_run for stage 'victim', which would write no bundle"):
        ChainRun(compose(file, ["trainer.fast_dev_run=true"]), "tiny", tmp_path / "out").plan()


def test_plan_says_that_a_stage_trains_nothing(file, tmp_path):
    detector = "{model: {class_path: lit_backdoor.defenses.tac.TACDetection}, inputs: {model.suspect: victim}}"
    with pytest.raises(ValueError, match=r"stages.detect.run=predict, since TACDetection trains nothing"):
        ChainRun(compose(file, [f"stages.detect={detector}"]), "tiny", tmp_path / "out").plan()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["stages.clean.run=predict"], "Expected stages.clean.run=fit, since UnlearningFineTune is trained"),
        ([f"stages.clean.model={EVALUATION}", "stages.clean.inputs={model.bundle: victim}"], "got Evaluation, which produces none"),
        ([f"stages.clean.model={EVALUATION}", "stages.clean.inputs={model.bundle: victim}", "stages.clean.run=predict"],
         "got Evaluation, which produces none"),
        (["data.init_args.attack.init_args.target=99"], "attack's target to be a class from 0 to 3, got 99"),
        ([f"stages.clean.model={PGBD}", "stages.clean.inputs={model.suspect: victim}"],
         "Stage 'clean' of the chain: Expected a map of 4 classes from 0 to 3, one for each class, got .1, 2, 3."),
        (["trainer.precision=bf16-true"], "Stage 'victim' of the chain: Expected --trainer.precision .*, got bf16-true"),
        (["stages.clean.trainer.overfit_batches=2"], "Stage 'clean' of the chain: Expected no --trainer.overfit_batches"),
        (["stages.clean.trainer.max_epochs=0"], "Stage 'clean' of the chain: Expected --trainer.max_epochs to be at least 1"),
    ],
)  # fmt: skip
def test_plan_refuses_what_only_a_run_would_stumble_over(file, settings, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        ChainRun(compose(file, settings), "tiny", tmp_path / "out").plan()


def test_plan_takes_zero_epochs_of_a_stage_that_predicts(file, tmp_path):
    assert ChainRun(compose(file, ["stages.select.trainer.max_epochs=0"]), "tiny", tmp_path / "out").plan()


def test_plan_names_the_epochs_that_a_stage_needs(file, tmp_path):
    settings = [f"stages.clean.model={UNLEARNING}", "stages.clean.inputs={model.suspect: victim}"]
    wanted = r"Expected 11 epochs for stage 'clean'.* got 2. Set stages.clean.trainer.max_epochs=11"
    with pytest.raises(ValueError, match=wanted):
        ChainRun(compose(file, settings), "tiny", tmp_path / "out").plan()
    assert ChainRun(compose(file, [*settings, "stages.clean.trainer.max_epochs=11"]), "tiny", tmp_path / "out").plan()


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("stages.clean.trainer.max_epochs=-5", "Stage 'clean'.*-5"),
        ("trainer.max_steps=-7", "-7"),
        ("stages.clean.model.init_args.optimizer={class_path: torch.optim.SGD, init_args: {lr: -1}}", "Stage 'clean'.*rate"),
        ("stages.clean.model.init_args.optimizer={class_path: torch.optim.SGD, init_args: {lr: .nan}}", "Stage 'clean'.*rate of SGD .*got nan"),
        ("stages.clean.model.init_args.optimizer={class_path: torch.optim.Adam, init_args: {lr: .inf}}", "Stage 'clean'.*rate of Adam .*got inf"),
        ("trainer.accelerator=gpuu", "gpuu"),
        ("trainer.strategy=dpp", "dpp"),
        ("trainer.max_time=soon", "DD:HH:MM:SS"),
        ("trainer.limit_train_batches=-1", "-1"),
        ("data.init_args.split.root_pool=100000", "root_pool of at most"),
        ("stages.victim.model.init_args.classifier.init_args.num_classes=7", "4 classes, got one for 7"),
    ],
)  # fmt: skip
def test_plan_refuses_what_can_be_known_without_training(file, setting, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        ChainRun(compose(file, [setting]), "tiny", tmp_path / "out").plan()


def test_numbers_keep_their_type(file, tmp_path):
    """Also where another package has made a union of the same types in another order first."""
    code = (
        "from typing import Optional, Union; Optional[Union[float, int]]; from pathlib import Path\n"
        "from lit_backdoor.chain.compose import compose; from lit_backdoor.chain.run import ChainRun\n"
        "for given in ('1', '1.0', '0.5'):\n"
        f"    run = ChainRun(compose({file!r}, [f'trainer.limit_train_batches={{given}}']), 'tiny', Path('out'))\n"
        "    print(repr(run._resolve('victim')['trainer']['limit_train_batches']))"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    command = [sys.executable, "-W", "ignore", "-c", code]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert [line for line in done.stdout.split() if line[0].isdigit()] == ["1", "1.0", "0.5"]
