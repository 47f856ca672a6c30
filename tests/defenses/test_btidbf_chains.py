import contextlib
import json
from pathlib import Path

import pytest

from lit_backdoor.chain.compose import compose
from lit_backdoor.chain.run import ChainRun
from lit_backdoor.chain.testing import build
from lit_backdoor.stages import Stage


@pytest.mark.slow
def test_chain_from_victim_to_detector(tmp_path):
    settings = [
        "data.init_args.source={class_path: lit_backdoor.data.sources.SyntheticSigns, init_args: "
        "{num_classes: 3, train_per_class: 20, test_per_class: 4, size: 16}}",
        "data.init_args.split={root_pool: 12}",
        "data.init_args.attack.init_args.trigger.init_args={size: 3, place: [1, 1]}",
        "stages.victim.model.init_args.classifier.init_args="
        "{name: resnet18, num_classes: 3, input_size: 16, channels: 4}",
        "stages.victim.trainer.max_epochs=1",
        "stages.purify.model.init_args={decoupling: {epochs: 1}, inversion: {epochs: 1}, rounds: 1, purify_epochs: 1}",
        "stages.purify.trainer.max_epochs=3",
        "stages.control.trainer.max_epochs=1",
        "trainer.precision=32-true",
    ]
    chain = compose("btidbf_p_varied", settings)
    invert = {
        "model": {
            "class_path": "lit_backdoor.defenses.btidbf.BTIDBFInversion",
            "init_args": {"decoupling": {"epochs": 1}, "inversion": {"epochs": 1}},
        },
        "inputs": {"model.suspect": "victim"},
        "trainer": {"max_epochs": 2},
    }
    chain["stages"]["invert"] = invert
    with contextlib.chdir(tmp_path):
        ChainRun(chain, "tiny", tmp_path, use_cache=False).run()
    stages = {stage["name"]: stage for stage in json.loads((tmp_path / "results.json").read_text())["stages"]}
    assert {"acc", "asr", "ra", "target_class"} <= stages["purify"]["metrics"].keys()
    assert {"precision", "recall", "f1", "auroc", "flagged_share"} <= stages["detect"]["metrics"].keys()
    assert {"feature_distance", "target_found", "target_class", "target_share"} <= stages["invert"]["metrics"].keys()
    assert list(Path(tmp_path / ".runs" / "detect").glob("inputs.csv"))


def test_generators_to_choose_from_come_from_a_configuration():
    generators = [
        {"class_path": "lit_backdoor.models.WarpField", "init_args": {"grid": 3}},
        {"class_path": "lit_backdoor.models.UNet", "init_args": {"base": 4, "downs": 2, "start": "small"}},
    ]
    arguments = {"suspect": "-", "generator": generators, "rounds": 1, "unlearn_epochs": 1}
    stage = build({"class_path": "lit_backdoor.defenses.btidbf.BTIDBFUnlearning", "init_args": arguments}, Stage)
    assert [type(net).__name__ for net in stage.make_generators()] == ["WarpField", "UNet"]
