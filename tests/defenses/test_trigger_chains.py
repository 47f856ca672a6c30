import contextlib
import json

import pytest
import torch

from lit_backdoor.bundle import open_bundle
from lit_backdoor.chain.compose import compose
from lit_backdoor.chain.run import ChainRun

TINY = [
    "data.init_args.source={class_path: lit_backdoor.data.sources.SyntheticSigns, init_args: "
    "{num_classes: 4, train_per_class: 20, test_per_class: 4, size: 16}}",
    "data.init_args.split={root_pool: 16}",
    "data.init_args.attack.init_args.trigger.init_args={size: 3, place: [1, 1]}",
    "stages.victim.model.init_args.classifier.init_args={name: resnet18, num_classes: 4, input_size: 16, channels: 4}",
    "stages.victim.trainer.max_epochs=1",
    "stages.detect.trainer.max_epochs=2",
    "stages.unlearn.trainer.max_epochs=1",
    "stages.control.trainer.max_epochs=1",
    "trainer.precision=32-true",
]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["nc", "pixel"])
def test_chain_that_flags_nothing_hands_on_the_victim(name, tmp_path):
    """An index above which no class lies, and triggers that need not work."""
    settings = [*TINY, "stages.detect.model.init_args={cost: {threshold: 0.01}, index_threshold: 1.0e+9}"]
    with contextlib.chdir(tmp_path):
        ChainRun(compose(name, settings), "tiny", tmp_path, use_cache=False).run()
    results = json.loads((tmp_path / "results.json").read_text())
    stages = {stage["name"]: stage["metrics"] for stage in results["stages"]}
    assert stages["detect"]["flagged_classes"] == 0
    assert stages["detect"]["target_class"] is stages["unlearn"]["target_class"] is None
    assert stages["detect"]["feature_distance"] > 0
    victim, clean = (open_bundle(tmp_path / stage, "suspect").build().state_dict() for stage in ("victim", "unlearn"))
    assert all(torch.equal(value, clean[key]) for key, value in victim.items())
    assert results["summary"]["before"] == results["summary"]["after"]
