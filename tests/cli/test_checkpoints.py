import json
import os
import pickle
import zipfile

import pytest
import torch
from cli_parts import POISONED, refused, written

from lit_backdoor.bundle import open_bundle
from lit_backdoor.cli import main


def test_fit_leaves_bundle_and_checkpoint_that_the_commands_take(folder, victim, capfd):
    model = {**POISONED, "init_args": {**POISONED["init_args"], "schedule": "constant"}}  # goes on past its end
    config = written(folder, model, {"enable_checkpointing": True, "default_root_dir": str(folder)})
    assert main(["fit", "--config", config, "--out", "b"]) == 0
    assert open_bundle(folder / "b").kind == "suspect"
    [checkpoint] = folder.rglob("*.ckpt")
    data = ["--data", "lit_backdoor.data.BackdoorDataModule", "--data.source", "lit_backdoor.data.SyntheticSigns",
            "--data.source.num_classes", "4", "--data.source.train_per_class", "20", "--data.source.size", "16",
            "--data.source.test_per_class", "5", "--trainer.logger", "false"]  # fmt: skip
    capfd.readouterr()
    assert main(["test", "--bundle", "b", *data]) == 0
    assert "test/acc" in capfd.readouterr().out
    for verb in ("validate", "test", "predict"):
        assert main([verb, "--config", config, "--ckpt_path", str(checkpoint)]) == 0
    assert (
        main(["fit", "--config", config, "--ckpt_path", str(checkpoint), "--trainer.max_epochs", "2", "--out", "c"])
        == 0
    )
    assert open_bundle(folder / "c").hash != open_bundle(folder / "b").hash
    other = written(folder, {**POISONED, "class_path": "lit_backdoor.stages.FloodingTraining"}, name="other.yaml")
    refused(
        capfd, ["fit", "--config", other, "--ckpt_path", checkpoint], "Expected a checkpoint of", "FloodingTraining"
    )
    wide = json.loads(json.dumps(POISONED))
    wide["init_args"]["classifier"]["init_args"]["channels"] = 8
    other = written(folder, wide, name="wide.yaml")
    refused(capfd, ["test", "--config", other, "--ckpt_path", checkpoint], "do not fit")
    cut = folder / "cut.ckpt"
    cut.write_bytes(checkpoint.read_bytes()[:1000])
    (folder / "empty.ckpt").write_bytes(b"")
    for bad, says in ((cut, "cut off"), (folder / "empty.ckpt", "empty"), (folder / "none.ckpt", "none.ckpt")):
        refused(capfd, ["test", "--config", config, "--ckpt_path", bad], says)


class Malicious:
    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.system, (f"touch {self.mark}",)


@pytest.mark.parametrize("form", ["zip", "legacy"])
def test_checkpoint_that_would_run_code_is_refused(folder, form, capfd):
    mark, path = folder / "mark", folder / "evil.ckpt"
    torch.save({"state_dict": {}, "x": Malicious(mark)}, path, _use_new_zipfile_serialization=form == "zip",
               pickle_module=pickle)  # fmt: skip
    assert zipfile.is_zipfile(path) == (form == "zip")
    config = written(folder, POISONED)
    for verb in ("fit", "test"):
        refused(capfd, [verb, "--config", config, "--ckpt_path", path], "posix.system", "refused")
        refused(capfd, [verb, "--config", config, "--ckpt_path", path, "--weights_only", "false"], "posix.system")
    assert not mark.exists()


@pytest.mark.parametrize("content", [{"a": torch.zeros(2)}, [1, 2], {"pytorch-lightning_version": 3}])
def test_file_that_no_trainer_wrote_as_checkpoint(folder, capfd, content):
    torch.save(content, folder / "other.ckpt")
    arguments = ["fit", "--config", written(folder, POISONED), "--ckpt_path", folder / "other.ckpt"]
    refused(capfd, arguments, "Expected a checkpoint that a Trainer wrote")


def test_settings_in_a_checkpoint_build_nothing(folder, capfd):
    mark = folder / "mark"
    net = {"class_path": "lit_backdoor.models.ForeignClassifier", "init_args": {
        "factory": "os.mkdir", "factory_args": {"path": str(mark)}, "split": "0", "num_classes": 4, "input_size": 16,
        "mean": [0.5] * 3, "std": [0.5] * 3}}  # fmt: skip
    hyper = {"_class_path": "lit_backdoor.stages.PoisonedTraining", "classifier": net}
    content = {"pytorch-lightning_version": "2.5.0", "state_dict": {}, "hyper_parameters": hyper}
    torch.save(content, folder / "other.ckpt")
    config = written(folder, POISONED)
    refused(capfd, ["test", "--config", config, "--ckpt_path", folder / "other.ckpt"], "not lit_backdoor")
    assert not mark.exists()


def test_plain_pickle_as_checkpoint(folder, capfd):
    (folder / "evil.ckpt").write_bytes(pickle.dumps(Malicious(folder / "mark")))
    refused(capfd, ["test", "--config", written(folder, POISONED), "--ckpt_path", folder / "evil.ckpt"], "refused")
    assert not (folder / "mark").exists()


@pytest.mark.parametrize(
    ("change", "says"), [({"global_step": -1}, "global_step not to be negative"), ({"epoch": []}, "epoch of type int")]
)
def test_parts_of_another_kind_in_a_checkpoint(folder, capfd, change, says):
    model = {**POISONED, "init_args": {**POISONED["init_args"], "schedule": "constant"}}
    config = written(folder, model, {"enable_checkpointing": True, "default_root_dir": str(folder)})
    assert main(["fit", "--config", config, "--out", "b"]) == 0
    [checkpoint] = folder.rglob("*.ckpt")
    torch.save({**torch.load(checkpoint, weights_only=True), **change}, folder / "other.ckpt")
    for verb in ("fit", "test"):
        error = refused(capfd, [verb, "--config", config, "--ckpt_path", folder / "other.ckpt"], says)
        assert "refused" in error.splitlines()[-1]
