import os
import sys
from pathlib import Path

import pytest
import tiny
import yaml
from cli_parts import POISONED, refused, written

from lit_backdoor.bundle import open_bundle, save_bundle
from lit_backdoor.cli import main
from lit_backdoor.models import UNet

STAGES = {
    "poisoned": POISONED,
    "abl": {**POISONED, "class_path": "lit_backdoor.stages.LocalGradientAscentTraining"},
    "flooding": {**POISONED, "class_path": "lit_backdoor.stages.FloodingTraining"},
    "fine_tune": {"class_path": "lit_backdoor.stages.FineTune", "init_args": {"suspect": "VICTIM"}},
    "unlearn": {"class_path": "lit_backdoor.stages.UnlearningFineTune",
                "init_args": {"suspect": "VICTIM", "generator": "GENERATOR"}},
    "stamped": {"class_path": "lit_backdoor.stages.UnlearningFineTune", "init_args": {
        "suspect": "VICTIM", "generator": {"class_path": "lit_backdoor.triggers.Blend"}}},
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


@pytest.mark.slow
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
    refused(capfd, ["fit", "--config", config], "Expected predict for LowestLoss, which trains nothing, got fit")


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


def test_bundle_beside_fit(folder, victim, capfd):
    refused(capfd, ["fit", "--config", written(folder, POISONED), "--bundle", victim], "got it with fit")


def test_stage_of_ones_own_lies_in_the_current_folder(folder, monkeypatch):
    """As with the installed command, whose path does not begin with the current folder."""
    (folder / "own_stage.py").write_text(
        "from lit_backdoor.stages import PoisonedTraining\n\n\nclass Own(PoisonedTraining):\n    pass\n"
    )
    monkeypatch.setattr(sys, "path", [*sys.path])
    file = written(folder, {**POISONED, "class_path": "own_stage.Own"})
    assert main(["fit", "--config", file, "--out", "b"]) == 0
    assert open_bundle(folder / "b").info["stage"] == "own_stage.Own"
