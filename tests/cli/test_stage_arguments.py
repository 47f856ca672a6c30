import json

import pytest
import yaml
from cli_parts import POISONED, refused, written

from lit_backdoor.bundle import open_bundle
from lit_backdoor.cli import main
from lit_backdoor.recipe import recipe
from lit_backdoor.triggers import named_attack


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (["--model.classifier.num_clases", "4"], "num_clases"),
        (["--model", "lit_backdoor.stages.PoisonedTrainning"], "PoisonedTrainning"),
        (["--trainer.max_epochss", "1"], "max_epochss"),
        (["--data.batch_size", "x"], "batch_size"),
        (["--trainer.precision", "17"], "17"),
        (["--trainer.devices", "1000000000"], "at most 4,096 of a machine, got 1000000000"),
    ],
)
def test_wrong_arguments_of_a_stage(folder, change, says, capfd):
    error = refused(capfd, ["fit", "--config", written(folder, POISONED), *change], says)
    assert len(error.splitlines()) <= 20  # the message, not the list of all options


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            ["--model.clasifier.channels", "4"],
            "Unknown option of PoisonedTraining 'clasifier'. Did you mean 'classifier'",
        ),
        (["--data.batchsize", "4"], "Unknown option of BackdoorDataModule 'batchsize'. Did you mean 'batch_size'"),
        (["--model", "lit_backdoor.stages.PoisonedTrainning"], "Did you mean 'PoisonedTraining'"),
        (["--model.classifier.num_clases", "4"], "Did you mean 'num_classes'"),
    ],
)
def test_unknown_name_gives_the_nearest(folder, change, says, capfd):
    refused(capfd, ["fit", "--config", written(folder, POISONED), *change], says)


def test_unknown_name_in_a_file_gives_the_nearest(folder, capfd):
    model = {**POISONED, "init_args": {**POISONED["init_args"], "optimiser": None}}
    refused(capfd, ["fit", "--config", written(folder, model)], "Did you mean 'optimizer'")


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


def test_callback_that_watches_what_is_not_logged(folder, capfd):
    watch = {"class_path": "lightning.pytorch.callbacks.EarlyStopping", "init_args": {"monitor": "nope"}}
    refused(capfd, ["fit", "--config", written(folder, POISONED, {"callbacks": [watch]})], "metric `nope` which is not")


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


@pytest.mark.parametrize("place", ["mine", "mine/bundle"])
def test_folder_of_somebody_else_is_not_replaced_by_a_bundle(folder, place, capfd):
    (folder / place).mkdir(parents=True)
    (folder / place / "thesis.tex").write_text("mine")
    root = [] if place == "mine" else ["--trainer.default_root_dir", "mine"]
    out = ["--out", "mine"] if place == "mine" else []
    refused(capfd, ["fit", "--config", written(folder, POISONED), *root, *out], "'thesis.tex'", "--out")
    assert (folder / place / "thesis.tex").read_text() == "mine"


def test_empty_out_of_a_stage_is_refused(folder, capfd):
    refused(capfd, ["fit", "--config", written(folder, POISONED), "--out", ""], "Expected --out to name a folder")
    assert {path.name for path in folder.iterdir()} == {"stage.yaml"}
