import json
import os
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import tiny
import torch
import yaml

from lit_backdoor.bundle import open_bundle, save_bundle
from lit_backdoor.cli import main
from lit_backdoor.models import UNet
from lit_backdoor.recipe import recipe
from lit_backdoor.triggers import named_attack

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LIT_BACKDOOR_CACHE", str(tmp_path / "cache"))
    return tmp_path


@pytest.fixture(scope="session")
def victim(tmp_path_factory):
    path = tmp_path_factory.mktemp("cli") / "victim"
    save_bundle(path, kind="suspect", module=tiny.classifier())
    return path


@pytest.fixture(scope="session")
def selection(tmp_path_factory):
    path = tmp_path_factory.mktemp("cli") / "selection"
    chosen = tiny.chain()["data"]["init_args"]
    from lit_backdoor.chain.testing import build_data

    data = build_data({"class_path": "lit_backdoor.data.BackdoorDataModule",
                       "init_args": {"source": tiny.SIGNS, "split": chosen["split"], "seed": 0}})  # fmt: skip
    save_bundle(path, kind="selection", tensors={"indices": data.get_view("questioned").index[:8]})
    return path


def written(folder, model, trainer=None, data=None, name="stage.yaml", **more):
    """Write a stage's configuration as somebody would by hand."""
    config = tiny.chain()["data"]
    attack = yaml.safe_load((ROOT / "configs" / "attacks" / "badnets_3x3.yaml").read_text())
    init_args = {**config["init_args"], "attack": attack, **(data or {})}
    file = folder / name
    file.write_text(yaml.safe_dump({
        "trainer": {**tiny.QUIET, "max_epochs": 1, **(trainer or {})}, "model": model,
        "data": {**config, "init_args": init_args}, **more,
    }))  # fmt: skip
    return str(file)


POISONED = {"class_path": "lit_backdoor.stages.PoisonedTraining", "init_args": {"classifier": tiny.NET}}


def refused(capfd, arguments, *says, code=2):
    assert main([str(argument) for argument in arguments]) == code
    error = capfd.readouterr().err
    assert "Traceback" not in error
    for text in says:
        assert text in error
    return error


# The light parser.


def in_a_process(*arguments, code=""):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [
        sys.executable,
        "-c",
        f"import sys; from lit_backdoor.cli import main; r = main({list(arguments)!r}); {code}",
    ]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=120)


@pytest.mark.parametrize("arguments", [["--help"], ["chain", "--help"], ["demo", "--help"], ["--version"]])
def test_help_imports_no_torch(arguments):
    heavy = "print([m for m in ('torch', 'lightning', 'numpy', 'yaml') if m in sys.modules], r)"
    done = in_a_process(*arguments, code=heavy)
    assert done.stdout.strip().splitlines()[-1] == "[] 0", done.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "COMMAND"),
        (["cahin"], "invalid choice: 'cahin'"),
        (["chain"], "NAME|FILE"),
        (["list", "attack"], "invalid choice: 'attack'"),
        (["chain", "demo", "--sed", "1"], "--sed"),
        (["chain", "demo", "--seed", "x"], "--seed"),
        (["chain", "dmeo"], "Did you mean 'demo'"),
        (["chain", "none.yaml"], "Expected a file at 'none.yaml'"),
        (["chain", "demo", "--set", "data.init_args.attack=badnet"], "Did you mean 'badnets"),
        (["chain", "demo", "--set", "stages.victim.trainer.max_epoch=1"], "Did you mean 'max_epochs'"),
        (["chain", "demo", "--set", "data.init_args.source.class_path=lit_backdoor.data.SyntheticSings"],
         "Did you mean 'SyntheticSigns'"),
    ],
)  # fmt: skip
def test_wrong_command_line(arguments, says, capfd):
    refused(capfd, arguments, says)


def test_list_names_what_there_is(capfd):
    assert main(["list"]) == 0
    shown = capfd.readouterr().out
    for name in ("badnets", "wanet", "demo", "atclean_cifar10_small", "lit_backdoor.data.SyntheticSigns",
                 "lit_backdoor.models.TimmClassifier", "lit_backdoor.defenses.atclean.CollisionGenerator"):  # fmt: skip
        assert name in shown
    assert "Alternating" not in shown  # a base
    assert main(["list", "attacks"]) == 0
    shown = capfd.readouterr().out
    assert "blend" in shown
    assert "demo" not in shown


# Chains.


def test_dry_run_prints_the_plan_and_writes_nothing(folder, capfd):
    assert main(["chain", "demo", "--dry-run"]) == 0
    shown = capfd.readouterr().out
    assert "select: predict lit_backdoor.stages.LowestLoss" in shown
    assert not list(folder.iterdir())


def test_chain_runs_and_says_where_things_are(folder, capfd):
    chain = tiny.chain()
    chain["stages"] = {"victim": chain["stages"]["victim"]}
    chain["summary"] = {"before": "victim", "after": None}
    (folder / "own.yaml").write_text(yaml.safe_dump(chain))
    assert main(["chain", "own.yaml", "--seed", "2", "--set", "stages.victim.trainer.max_epochs=1"]) == 0
    shown = capfd.readouterr().out
    results = folder / "runs" / "own-seed2" / "results.json"
    assert json.loads(results.read_text())["seed"] == 2
    assert str(results.relative_to(folder)) in shown
    assert "ACC" in shown


def test_sweep_runs_each_variant_in_a_folder_of_its_own(folder, capfd):
    chain = tiny.chain(sweep={"data.init_args.attack": ["badnets_3x3", None]})
    chain["stages"] = {"victim": chain["stages"]["victim"]}
    chain["stages"]["victim"]["trainer"]["max_epochs"] = 1
    chain["summary"] = {"before": "victim"}
    (folder / "own.yaml").write_text(yaml.safe_dump(chain))
    assert main(["chain", "own.yaml", "--out", "o"]) == 0
    runs = json.loads((folder / "o" / "sweep.json").read_text())["runs"]
    assert [run["run"] for run in runs] == ["attack=badnets_3x3", "attack=None"]
    assert runs[1]["summary"]["before"]["asr"] is None
    assert all((folder / "o" / run["run"] / "results.json").is_file() for run in runs)


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("data.init_args.attack.init_args.target=16", "target"),
        ("data.init_args.attack.init_args.target=-1", "target"),
        ("data.init_args.attack.init_args.rate=0", "(0, 1"),
        ("data.init_args.attack.init_args.rate=1.5", "(0, 1"),
        ("stages.select.model.init_args.share=1", "(0, 1)"),
        ("data.init_args.split.root_pool=1.5", "split.root_pool"),
        ("data.init_args.batch_size=0", "batch_size"),
    ],
)
def test_values_out_of_range(folder, capfd, setting, says):
    file = tiny.write_chain(folder / "tiny.yaml")
    refused(capfd, ["chain", file, "--no-cache", "--set", setting], says)
    assert not (folder / "runs" / "tiny-seed5" / "victim").exists()


def test_classifier_for_other_classes(folder, capfd):
    file = tiny.write_chain(folder / "tiny.yaml")
    setting = "stages.victim.model.init_args.classifier.init_args.num_classes=7"
    refused(capfd, ["chain", file, "--no-cache", "--set", setting], "data's 4 classes, got one for 7")


def test_corrupt_parquet_is_named(folder, capfd):
    (folder / "train.parquet").write_bytes(b"")
    (folder / "test.parquet").write_bytes(b"PAR1 nothing PAR1")
    file = tiny.write_chain(folder / "tiny.yaml")
    arguments = {part: str(folder / f"{part}.parquet") for part in ("train", "test")}
    source = json.dumps({"class_path": "lit_backdoor.data.ParquetSource", "init_args": arguments})
    refused(capfd, ["chain", file, "--no-cache", "--set", f"data.init_args.source={source}"], ".parquet")


# One stage.

STAGES = {
    "poisoned": POISONED,
    "abl": {**POISONED, "class_path": "lit_backdoor.stages.LocalGradientAscentTraining"},
    "flooding": {**POISONED, "class_path": "lit_backdoor.stages.FloodingTraining"},
    "fine_tune": {"class_path": "lit_backdoor.stages.FineTune", "init_args": {"suspect": "VICTIM"}},
    "unlearn": {"class_path": "lit_backdoor.stages.UnlearningFineTune",
                "init_args": {"suspect": "VICTIM", "generator": "GENERATOR"}},
    "stamped": {"class_path": "lit_backdoor.defenses.atclean.StampedFineTune", "init_args": {
        "suspect": "VICTIM", "trigger": {"class_path": "lit_backdoor.triggers.Blend"}}},
    "collision": {"class_path": "lit_backdoor.defenses.atclean.CollisionGenerator",
                  "init_args": {"suspect": "VICTIM", "generator": tiny.UNET, "layers": 2}},
    "detector_free": {"class_path": "lit_backdoor.defenses.atclean.DetectorFreeGenerator",
                      "init_args": {"suspect": "VICTIM", "layers": 2}},
}  # fmt: skip
PREDICTING = {
    "lowest_loss": {"class_path": "lit_backdoor.stages.LowestLoss", "init_args": {"suspect": "VICTIM", "share": 0.1}},
    "oracle": {"class_path": "lit_backdoor.stages.OracleSelection", "init_args": {"suspect": "VICTIM", "share": 0.05}},
    "untrained": {"class_path": "lit_backdoor.defenses.atclean.UntrainedGenerator", "init_args": {"suspect": "VICTIM"}},
}


def filled(folder, model, victim):
    text = yaml.safe_dump(model)
    if "GENERATOR" in text:
        save_bundle(folder / "generator", kind="generator", module=UNet(base=4, downs=2, start="small"))
    return yaml.safe_load(text.replace("VICTIM", str(victim)).replace("GENERATOR", str(folder / "generator")))


@pytest.mark.parametrize("name", STAGES)
def test_fast_dev_run_of_every_command(folder, name, victim, selection, capfd):
    config = written(folder, filled(folder, STAGES[name], victim), {"limit_val_batches": 1},
                     {"suspicious": str(selection)}, seed_everything=0)  # fmt: skip
    fast = ["--config", config, "--trainer.fast_dev_run", "1"]
    assert main(["fit", *fast]) == 0
    assert not (folder / "bundle").exists()
    for verb in ("validate", "test", "predict"):
        refused(capfd, [verb, *fast], "has no trained weights here")


@pytest.mark.parametrize("name", PREDICTING)
def test_predicting_stages_leave_bundles(folder, name, victim):
    config = written(folder, filled(folder, PREDICTING[name], victim), {"limit_val_batches": 1}, seed_everything=0)
    assert main(["predict", "--config", config, "--trainer.fast_dev_run", "1"]) == 0
    assert main(["predict", "--config", config, "--out", "o/b"]) == 0
    assert open_bundle(folder / "o" / "b").info["inputs"]["suspect"]["hash"] == open_bundle(victim).hash
    assert main(["validate", "--config", config, "--trainer.fast_dev_run", "1"]) == 0
    assert main(["test", "--config", config, "--trainer.fast_dev_run", "1"]) == 0


def test_predicting_stage_cannot_be_fitted(folder, victim, capfd):
    config = written(folder, filled(folder, PREDICTING["lowest_loss"], victim))
    refused(capfd, ["fit", "--config", config], "training_step")


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


@pytest.mark.parametrize("kind", ["suspect", "selection", "generator", "none", "damaged"])
def test_bundle_stands_for_its_evaluation(folder, victim, selection, capfd, kind):
    config = yaml.safe_load(Path(written(folder, POISONED)).read_text())
    del config["model"], config["trainer"]["max_epochs"]
    (folder / "data.yaml").write_text(yaml.safe_dump(config))
    path = {"suspect": victim, "selection": selection}.get(kind, folder / kind)
    if kind == "generator":
        made = {"suspect": {"hash": open_bundle(victim).hash, "path": os.path.relpath(victim, path)}}
        save_bundle(path, kind="generator", module=UNet(base=4, downs=2), inputs=made)
    elif kind == "damaged":
        path.mkdir()
        (path / "bundle.json").write_text("{}")
    arguments = ["test", f"--bundle={path}", "--config", str(folder / "data.yaml")]
    if kind in ("none", "damaged"):
        refused(capfd, arguments, "Expected a bundle" if kind == "none" else "is damaged")
        return
    assert main(arguments) == 0
    shown = capfd.readouterr().out
    assert {"suspect": "test/asr", "selection": "test/selection", "generator": "test/dof"}[kind] in shown


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


@pytest.mark.parametrize(("change", "says"), [
    (["--set", "trainer.devices=abc"], "devices"),
    (["--set", "trainer.devices=0"], "devices"),
    (["--set", "sweep=3"], "list of values"),
    (["--set", "sweep={data.init_args.attack.init_args.rate: 0.1}"], "list of values"),
    (["--launcher", "no-such-launcher"], "no-such-launcher"),
])  # fmt: skip
def test_chain_refuses_what_it_cannot_start(capfd, change, says):
    refused(capfd, ["chain", "demo", "--dry-run", *change], "Expected", says)


def test_bundle_beside_fit(folder, victim, capfd):
    refused(capfd, ["fit", "--config", written(folder, POISONED), "--bundle", victim], "got it with fit")


def test_plain_pickle_as_checkpoint(folder, capfd):
    (folder / "evil.ckpt").write_bytes(pickle.dumps(Malicious(folder / "mark")))
    refused(capfd, ["test", "--config", written(folder, POISONED), "--ckpt_path", folder / "evil.ckpt"], "refused")
    assert not (folder / "mark").exists()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (["--model.classifier.num_clases", "4"], "num_clases"),
        (["--model", "lit_backdoor.stages.PoisonedTrainning"], "PoisonedTrainning"),
        (["--trainer.max_epochss", "1"], "max_epochss"),
        (["--data.batch_size", "x"], "batch_size"),
        (["--trainer.precision", "17"], "17"),
    ],
)
def test_wrong_arguments_of_a_stage(folder, change, says, capfd):
    error = refused(capfd, ["fit", "--config", written(folder, POISONED), *change], says)
    assert len(error.splitlines()) <= 20  # the message, not the list of all options


def test_attack_by_name(folder, capfd):
    assert main(["fit", "--config", written(folder, POISONED, data={"attack": "badnets_3x3"}), "--out", "b"]) == 0
    assert recipe(open_bundle(folder / "b").attack()) == recipe(named_attack("badnets_3x3"))
    wrong = written(folder, POISONED, data={"attack": "badnet"})
    refused(capfd, ["fit", "--config", wrong], "Unknown attack 'badnet'. Did you mean 'badnets'")


def test_unknown_layer_gives_the_nearest(folder, capfd):
    model = json.loads(json.dumps(POISONED))
    model["init_args"]["classifier"]["init_args"]["split"] = "layr4"
    refused(capfd, ["fit", "--config", written(folder, model)], "layr4", "Did you mean 'layer4'")


def test_kind_of_bundle_that_does_not_fit(folder, victim, selection, capfd):
    model = {"class_path": "lit_backdoor.stages.FineTune", "init_args": {"suspect": str(selection)}}
    refused(capfd, ["fit", "--config", written(folder, model)], "Expected a bundle of kind 'suspect', got 'selection'")


def test_print_config_runs_nothing(folder, capfd):
    assert main(["fit", "--config", written(folder, POISONED), "--print_config"]) == 0
    assert yaml.safe_load(capfd.readouterr().out)["model"]["class_path"].endswith("PoisonedTraining")
    assert {path.name for path in folder.iterdir()} == {"stage.yaml"}


def test_diverged_run_exits_with_one(folder, capfd):
    model = json.loads(json.dumps(POISONED))
    model["init_args"]["optimizer"] = {"class_path": "torch.optim.SGD", "init_args": {"lr": 1e30}}
    refused(capfd, ["fit", "--config", written(folder, model, {"max_epochs": 3})], "training loss", "epoch", code=1)


def test_own_trigger_of_somebody_else(folder, monkeypatch):
    (folder / "their_trigger.py").write_text(
        "from lit_backdoor.triggers import Trigger\n\n\nclass Invert(Trigger):\n"
        "    def __init__(self, strength: float = 1.0) -> None:\n        super().__init__()\n"
        "        self.strength = strength\n\n    def forward(self, images, index):\n"
        "        return images + self.strength * (1 - 2 * images)\n"
    )
    monkeypatch.syspath_prepend(str(folder))
    attack = {"class_path": "lit_backdoor.triggers.Attack", "init_args": {
        "trigger": {"class_path": "their_trigger.Invert", "init_args": {"strength": 0.5}}, "target": 0}}  # fmt: skip
    assert main(["fit", "--config", written(folder, POISONED, data={"attack": attack}), "--out", "b"]) == 0
    assert open_bundle(folder / "b").attack(trust=("their_trigger",)).trigger.strength == 0.5
