"""What the chains of PGBD promise: a fair control, and triggers and targets that are wired."""

import contextlib
import json

import pytest
import tiny

from lit_backdoor.bundle import open_bundle, save_bundle
from lit_backdoor.chain.compose import compose
from lit_backdoor.chain.run import ChainRun
from lit_backdoor.defenses.pgbd import STPGBD
from lit_backdoor.presets import list_configs

NAMES = [name for kind in ("defenses", "chains") for name in list_configs(kind) if name.startswith("pgbd")]


@pytest.mark.parametrize("name", NAMES)
def test_control_differs_by_the_loss_alone(name):
    stages = compose(name)["stages"]
    [defense] = [stage for stage in stages.values() if "PGBD" in stage["model"]["class_path"]]
    control = stages["control"]
    assert control.get("steps") == defense.get("steps")
    assert control.get("trainer") == defense.get("trainer")
    assert control["data"] == defense["data"]
    for option in ("optimizer", "schedule"):
        assert control["model"]["init_args"].get(option) == defense["model"]["init_args"].get(option)
    assert control["model"]["init_args"]["batch_norm"] == defense["model"]["init_args"].get("batch_norm", "eval")


def test_synthesized_trigger_is_noted_as_an_input(tmp_path):
    save_bundle(tmp_path / "generator", kind="generator", module=tiny.unet())
    stage = tiny.fit(STPGBD(tiny.classifier(), str(tmp_path / "generator")), tiny.data())
    stage.export(tmp_path / "suspect")
    assert open_bundle(tmp_path / "suspect").info["inputs"]["trigger"]["path"] == "../generator"


@pytest.mark.slow
def test_chain_from_victim_to_inverted_trigger_and_sanitized_suspect(tmp_path):
    net = "{name: resnet18, num_classes: 3, input_size: 16, channels: 4}"
    signs = "{num_classes: 3, train_per_class: 20, test_per_class: 4, size: 16}"
    settings = [
        f"data.init_args.source={{class_path: lit_backdoor.data.sources.SyntheticSigns, init_args: {signs}}}",
        "data.init_args.split={root_pool: 12}",
        "data.init_args.batch_size=8",
        "data.init_args.attack.init_args.trigger.init_args={size: 3, place: [1, 1]}",
        f"stages.victim.model.init_args.classifier.init_args={net}",
        "stages.victim.trainer.max_epochs=1",
        "stages.invert.model.init_args={decoupling: {epochs: 1}, inversion: {epochs: 1}}",
        "stages.invert.trainer.max_epochs=2",
        "stages.clean.trainer.max_epochs=1",
        "stages.control.trainer.max_epochs=1",
        "trainer.precision=32-true",
    ]
    with contextlib.chdir(tmp_path):
        ChainRun(compose("pgbd_st_decoupled", settings), "tiny", tmp_path, use_cache=False).run()
    stages = {stage["name"]: stage for stage in json.loads((tmp_path / "results.json").read_text())["stages"]}
    assert {"acc", "asr", "ra", "target_class"} <= stages["clean"]["metrics"].keys()
    assert stages["clean"]["metrics"]["target_class"] == stages["invert"]["metrics"]["target_class"]
