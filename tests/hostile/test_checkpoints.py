"""Hostile and broken checkpoints, through ``fit --ckpt_path``."""

import pickle
from pathlib import Path

import pytest
import tiny
import torch
from cli_parts import POISONED, written
from hostile_parts import Payload, assert_refused, data_file

from lit_backdoor.cli import main


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A checkpoint of one epoch, as the stage wrote it."""
    folder = tmp_path_factory.mktemp("trained")
    config = written(folder, POISONED, {"enable_checkpointing": True, "default_root_dir": str(folder)})
    assert main(["fit", "--config", config, "--out", str(folder / "b")]) == 0
    [path] = folder.rglob("*.ckpt")
    return path


def loops(**progress):
    return lambda c: c["loops"]["fit_loop"]["epoch_progress"]["current"].update(progress)


def best(path):
    state = {"monitor": None, "best_model_score": None, "best_model_path": path, "current_score": None,
             "dirpath": "../precious", "best_k_models": {path: torch.tensor(0.0)}, "kth_best_model_path": path,
             "kth_value": torch.tensor(0.0), "last_model_path": path}  # fmt: skip
    name = "ModelCheckpoint{'monitor': None, 'mode': 'min', 'every_n_train_steps': 0, 'every_n_epochs': 1, "
    return lambda c: c.update(callbacks={**c["callbacks"], name + "'train_time_interval': None}": state})


def weights(change):
    return lambda c: c["state_dict"].update({key: change(value) for key, value in c["state_dict"].items()})


CHANGES = {
    "callback's path": best("../precious/file"),
    "callback's absolute path": best("/precious/file"),
    "callback's address": best("http://localhost/x"),
    "callbacks of a list": lambda c: c.update(callbacks=[1]),
    "callbacks of a number": lambda c: c.update(callbacks={"a": 3}),
    "NaN": weights(lambda v: v * torch.nan if v.is_floating_point() else v),
    "complex": weights(lambda v: v * 1j if v.is_floating_point() else v),
    "whole numbers": weights(lambda v: v.int()),
    "no weights": lambda c: c.update(state_dict={}),
    "weights of a list": lambda c: c.update(state_dict=[1, 2]),
    "weights of texts": lambda c: c.update(state_dict={"a": "b"}),
    "negative epoch": lambda c: c.update(epoch=-3),
    "negative step": lambda c: c.update(global_step=-3),
    "epoch of a text": lambda c: c.update(epoch="one"),
    "loops of a number": lambda c: c.update(loops=3),
    "no loops": lambda c: c.pop("loops"),
    "negative progress": loops(completed=-1, processed=-1),
    "progress of a text": loops(completed="one"),
    "optimizers of a number": lambda c: c.update(optimizer_states=3),
    "two optimizers": lambda c: c.update(optimizer_states=c["optimizer_states"] * 2),
    "optimizer of a text": lambda c: c.update(optimizer_states=["x"]),
    "schedulers of a text": lambda c: c.update(lr_schedulers=["x"]),
    "version of a number": lambda c: c.update({"pytorch-lightning_version": 3}),
    "version of a text": lambda c: c.update({"pytorch-lightning_version": "new"}),
    "stage of a number": lambda c: c.update(lit_backdoor=3),
}


@pytest.mark.parametrize("name", CHANGES)
def test_part_that_no_trainer_wrote(tmp_path, checkpoint, name):
    content = torch.load(checkpoint, weights_only=True)
    CHANGES[name](content)
    work = tmp_path / "work"
    work.mkdir()
    torch.save(content, work / "hostile.ckpt")
    options = {"enable_checkpointing": True, "default_root_dir": str(work), "max_epochs": 2}
    assert_refused(tmp_path, ["fit", "--config", written(work, POISONED, options), "--ckpt_path", "hostile.ckpt"])


FILES = {
    "payload": lambda p: torch.save({"state_dict": Payload(p.parents[1])}, p),
    "payload, old format": lambda p: torch.save(Payload(p.parents[1]), p, _use_new_zipfile_serialization=False),
    "bare pickle": lambda p: p.write_bytes(pickle.dumps(Payload(p.parents[1]))),
    "empty": lambda p: p.write_bytes(b""),
    "text": lambda p: p.write_text("a checkpoint"),
    "folder": Path.mkdir,
    "endless": lambda p: p.symlink_to("/dev/zero"),
    "weights only": lambda p: torch.save(tiny.classifier().state_dict(), p),
}


@pytest.mark.parametrize("verb", ["fit", "validate"])
@pytest.mark.parametrize("name", FILES)
def test_file_that_is_no_checkpoint(tmp_path, name, verb):
    work = tmp_path / "work"
    work.mkdir()
    FILES[name](work / "hostile.ckpt")
    data_file(work)
    assert_refused(tmp_path, [verb, "--config", written(work, POISONED), "--ckpt_path", "hostile.ckpt"])
