"""The chains of the baselines, at their smallest."""

import contextlib
import json

import pytest

from lit_backdoor.chain.compose import compose
from lit_backdoor.chain.run import ChainRun

TINY = [
    "data.init_args.source={class_path: lit_backdoor.data.sources.SyntheticSigns, init_args: "
    "{num_classes: 4, train_per_class: 20, test_per_class: 4, size: 16}}",
    "data.init_args.split={root_pool: 16}",
    "data.init_args.batch_size=16",
    "data.init_args.attack.init_args.trigger.init_args={size: 3, place: [1, 1]}",
    "stages.victim.model.init_args.classifier.init_args={name: resnet18, num_classes: 4, input_size: 16, channels: 4}",
    "stages.victim.passes=1",
    "trainer.precision=32-true",
]
KNOWN = {  # what each is given, and what its choices see
    "anp": ("root", "root"),
    "anp/oracle": ("root", "oracle"),
    "nad": ("root", "none"),
    "clp": ("none", "none"),
    "fp": ("root", "root"),
    "rnp": ("root", "root"),
    "abl": ("questioned", "none"),
    "shrink_pad": ("none", "none"),
    "mcr": ("root", "root"),
    "awm": ("root", "none"),
    "nab": ("both", "none"),
    "pdb": ("both", "none"),
    "moth": ("root", "none"),
    "mcl": ("root", "none"),
    "none": ("questioned", "none"),
    "pipd": ("questioned", "none"),
    "featurere": ("root", "none"),
    "unicorn": ("root", "none"),
    "abs": ("root", "none"),
    "februus": ("root", "root"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", KNOWN)
def test_chain_runs_and_says_what_it_knows(name, tmp_path):
    lengths = [f"stages.{stage}.steps=2" for stage, each in compose(name)["stages"].items() if each.get("steps")]
    with contextlib.chdir(tmp_path):
        ChainRun(compose(name, [*TINY, *lengths]), "tiny", tmp_path, use_cache=False).run()
    results = json.loads((tmp_path / "results.json").read_text())
    assert (results["access"], results["selection"]) == KNOWN[name]
    assert None not in results["summary"]["after"].values()
    assert "control" in {stage["name"] for stage in results["stages"]}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["strip", "scale_up"])
def test_detector_of_inputs_runs_and_leaves_the_victim_as_it_is(name, tmp_path):
    with contextlib.chdir(tmp_path):
        ChainRun(compose(name, TINY), "tiny", tmp_path, use_cache=False).run()
    results = json.loads((tmp_path / "results.json").read_text())
    stages = {stage["name"]: stage for stage in results["stages"]}
    assert list(stages) == ["victim", "detect"]
    assert {"precision", "recall", "f1", "auroc", "threshold", "flagged_share"} <= stages["detect"]["metrics"].keys()
    assert results["summary"]["after"] is None
    assert (results["access"], results["selection"]) == ("root", "root")
