"""Slurm's signal: the job is queued again and goes on from the end of an epoch, with the same end."""

import signal

import pytest
import tiny
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint

from lit_backdoor.signals import Stopped
from lit_backdoor.stages import PoisonedTraining
from lit_backdoor.stages.requeue import Requeue
from lit_backdoor.stages.stopping import StopAtBatch


class Ended(Callback):
    """Slurm: a warning at a step, the end of the job a step later."""

    def __init__(self, step):
        self.step = step

    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step == self.step:
            signal.raise_signal(signal.SIGUSR1)
        elif trainer.global_step == self.step + 1:
            raise Stopped(signal.SIGTERM)


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """The variables of a job of one task, and a ``scontrol`` that notes what it is asked."""
    for name in ("NTASKS", "JOB_ID", "PROCID", "LOCALID", "NODEID"):
        monkeypatch.setenv(f"SLURM_{name}", {"NTASKS": "1", "JOB_ID": "77"}.get(name, "0"))
    monkeypatch.setenv("SLURM_JOB_NAME", "train")
    file = tmp_path / "bin" / "scontrol"
    file.parent.mkdir()
    file.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path / "asked"}\n')
    file.chmod(0o700)
    monkeypatch.setenv("PATH", str(file.parent), prepend=":")
    return tmp_path / "asked"


def fit(folder, *callbacks):
    saver = ModelCheckpoint(folder / "kept", "{epoch}", save_top_k=1)
    stage, given = PoisonedTraining(tiny.classifier()), {"limit_val_batches": 0, "enable_checkpointing": True}
    trainer = tiny.trainer(**given, max_epochs=3, default_root_dir=folder, callbacks=[saver, *callbacks])
    trainer.fit(stage, tiny.data(), weights_only=True)
    return tiny.tensors(stage)


@pytest.mark.parametrize(("step", "epoch"), [(1, 0), (5, 1), (6, 2)])  # of 3 steps an epoch
def test_requeued_job_goes_on_from_the_end_of_an_epoch(slurm, tmp_path, step, epoch):
    callbacks = [StopAtBatch(), Requeue()]
    with pytest.raises(Stopped):
        fit(tmp_path / "run", Ended(step), *callbacks)
    assert slurm.read_text() == "requeue 77\n"
    queued = torch.load(tmp_path / "run" / "hpc_ckpt_1.ckpt", weights_only=True)
    assert queued["epoch"] == max(0, epoch - 1)
    assert queued["global_step"] == 3 * epoch
    again = fit(tmp_path / "run", *callbacks)
    assert not tiny.moved(fit(tmp_path / "straight"), again)
    assert not (tmp_path / "run" / "requeue.ckpt").exists()
