"""How a run may end, and what it then leaves."""

import signal
from datetime import timedelta

import pytest
import tiny
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping

from lit_backdoor.bundle import open_bundle
from lit_backdoor.stages import BundleWriter, PoisonedTraining


class At(Callback):
    """Do something after a step of the first epoch."""

    def __init__(self, action):
        self.action = action

    def on_train_batch_end(self, trainer, stage, *args):
        self.action(trainer)


@pytest.mark.parametrize("options", [
    {"max_steps": 2},
    {"max_time": timedelta(milliseconds=1)},
    {"callbacks": [EarlyStopping("train/loss", patience=1, divergence_threshold=-1.0, check_on_train_epoch_end=True)]},
    {"callbacks": [At(lambda trainer: setattr(trainer, "should_stop", True))]},
], ids=["max_steps", "max_time", "early_stopping", "should_stop"])  # fmt: skip
def test_run_that_was_meant_to_end_early_leaves_its_bundle(options, tmp_path):
    writer, stage = BundleWriter(str(tmp_path / "b")), PoisonedTraining(tiny.classifier())
    tiny.fit(stage, tiny.data(), **{"max_epochs": 3, **options, "callbacks": [*options.get("callbacks", []), writer]})
    assert stage.trainer.current_epoch == 1
    left = open_bundle(tmp_path / "b").build().state_dict()
    assert all(torch.equal(left[key], value) for key, value in stage.classifier.state_dict().items())


def fail(trainer):
    raise RuntimeError("stopped")


@pytest.mark.parametrize("action", [
    fail, lambda trainer: signal.raise_signal(signal.SIGTERM), lambda trainer: signal.raise_signal(signal.SIGINT),
], ids=["error", "SIGTERM", "SIGINT"])  # fmt: skip
@pytest.mark.parametrize("epochs", [1, 3])
def test_interrupted_run_leaves_no_bundle(action, epochs, tmp_path):
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it
    callbacks = [At(action), BundleWriter(str(tmp_path / "b"))]
    try:
        with pytest.raises((RuntimeError, SystemExit)):
            tiny.fit(PoisonedTraining(tiny.classifier()), tiny.data(), max_epochs=epochs, callbacks=callbacks)
    finally:
        signal.signal(signal.SIGINT, handler)
    assert not (tmp_path / "b").exists()


def test_run_that_ended_before_its_first_step_is_an_error(tmp_path):
    writer = BundleWriter(str(tmp_path / "b"))
    with pytest.raises(ValueError, match=r"ended before its first step. Give it more --trainer.max_time"):
        tiny.fit(PoisonedTraining(tiny.classifier()), tiny.data(), max_time=timedelta(0), callbacks=[writer])
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize("name", ["max_epochs", "max_steps", "limit_train_batches"])
def test_a_run_that_would_train_nothing_is_an_error(name):
    with pytest.raises(ValueError, match=f"Expected --trainer.{name} to be at least 1"):
        tiny.trainer(**{name: 0}).fit(PoisonedTraining(tiny.classifier()), tiny.data())


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"precision": "bf16-true"}, "32-true, bf16-mixed or 16-mixed, got bf16-true"),
        ({"precision": "16-true"}, "got 16-true"),
        ({"overfit_batches": 2}, "limit_train_batches"),
        ({"overfit_batches": 0.5}, "limit_train_batches"),
    ],
)
def test_settings_of_the_trainer_that_no_stage_can_work_with_are_named(setting, message):
    with pytest.raises(ValueError, match=message):
        tiny.trainer(**setting).fit(PoisonedTraining(tiny.classifier()), tiny.data())
