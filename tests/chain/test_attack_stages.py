"""Stages of an attack that run before the victim."""

import json

import pytest
import tiny
import yaml

from lit_backdoor.bundle import open_bundle
from lit_backdoor.chain.compose import compose
from lit_backdoor.chain.grid.cells import Cell
from lit_backdoor.chain.grid.graph import connect
from lit_backdoor.chain.run import ChainRun
from lit_backdoor.chain.store import Store

UNET = {**tiny.UNET, "init_args": {**tiny.UNET["init_args"], "start": "random"}}
ATTACK = {
    "attack": {
        "class_path": "lit_backdoor.triggers.Attack",
        "init_args": {
            "trigger": {"class_path": "lit_backdoor.triggers.InputAware",
                        "init_args": {"generator": UNET, "masker": UNET}},
            "rate": 0.1,
        },
    },
    "stages": {
        "surrogate": {"like": "victim", "data": {"init_args": {"attack": None}}},
        "masks": {"model": {"class_path": "lit_backdoor.attacks.InputAwareMask"}, "trainer": {"max_epochs": 1}},
    },
    "victim": {"class_path": "lit_backdoor.attacks.InputAwareTraining", "init_args": {"poison": 0.2}},
}  # fmt: skip


@pytest.fixture
def attack(tmp_path):
    def write(**changes):
        file = tmp_path / "own.yaml"
        file.write_text(json.dumps({**ATTACK, **changes}))
        return str(file)

    return write


@pytest.fixture
def chain(tmp_path):
    return tiny.write_chain(tmp_path / "tiny.yaml")


def test_an_attacks_stages_come_first_and_the_last_one_gives_the_attack(chain, attack):
    stages = compose(chain, attack=attack())["stages"]
    assert list(stages)[:3] == ["surrogate", "masks", "victim"]
    assert stages["victim"]["inputs"] == {"data.attack": "masks"}


def test_a_stage_like_the_victim_is_the_setups_victim(chain, attack):
    stages = compose(chain, attack=attack())["stages"]
    before = compose(chain)["stages"]["victim"]
    assert stages["surrogate"] == {**before, "data": {"init_args": {"attack": None}}}
    assert stages["victim"]["model"]["class_path"].endswith("InputAwareTraining")


def test_a_victim_that_is_described_as_a_whole_takes_its_own_inputs_and_lengths(chain, attack):
    tuned = {"model": {"class_path": "lit_backdoor.attacks.TriggerFreeTuning"},
             "inputs": {"model.suspect": "benign"}, "steps": 5}  # fmt: skip
    stages = compose(chain, attack=attack(stages={"benign": ATTACK["stages"]["surrogate"]}, victim=tuned))["stages"]
    assert list(stages)[:2] == ["benign", "victim"]
    assert stages["victim"] == tuned
    assert stages["benign"]["trainer"] == {"max_epochs": 3}


def test_the_attack_of_the_whole_chain_may_be_set(chain, attack):
    composed = compose(chain, ["data.init_args.attack.init_args.target=2"], attack=attack())
    assert composed["data"]["init_args"]["attack"]["init_args"]["target"] == 2
    with pytest.raises(ValueError, match="the bundle of stage 'masks' would replace it"):
        compose(chain, ["stages.victim.data.init_args.attack=badnets"], attack=attack())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stages": {"select": ATTACK["stages"]["masks"]}}, "names of their own.*'select'"),
        ({"stages": {"one": {"like": "control"}}}, "like: victim"),
        ({"stages": {"one": {}}}, "describe each of its stages"),
        ({"victim": {"steps": 5}}, "name the stage of its victim"),
        ({"phases": {}}, "Unknown key of the attack .* 'phases'"),
    ],
)
def test_errors(chain, attack, changes, message):
    with pytest.raises(ValueError, match=message):
        compose(chain, attack=attack(**changes))


@pytest.mark.slow
def test_victim_and_what_follows_have_the_attack_as_it_was_trained(attack, tmp_path, monkeypatch):
    monkeypatch.setenv("LIT_BACKDOOR_CACHE", str(tmp_path / "cache"))
    settings = tiny.chain(summary={"before": "victim", "after": "tune"})
    settings["stages"] = {
        "victim": settings["stages"]["victim"],
        "tune": {"model": {"class_path": "lit_backdoor.stages.FineTune"}, "inputs": {"model.suspect": "victim"},
                 "trainer": {"max_epochs": 1}},
    }  # fmt: skip
    (tmp_path / "own-chain.yaml").write_text(yaml.safe_dump(settings))
    composed = compose(str(tmp_path / "own-chain.yaml"), attack=attack())
    out = tmp_path / "out"
    results = ChainRun(composed, "own", out).run()
    assert [stage["kind"] for stage in results["stages"]] == ["suspect", "attack", "suspect", "suspect"]
    masks, victim, tuned = (open_bundle(out / name) for name in ("masks", "victim", "tune"))
    assert open_bundle(out / "surrogate").info["attack"] is None
    trained = tiny.tensors(masks.attack().trigger.masker)
    for bundle in (victim, tuned):
        assert not tiny.moved(trained, tiny.tensors(bundle.attack().trigger.masker))
    metrics = {stage["name"]: stage["metrics"] for stage in results["stages"]}
    assert {"psnr", "ssim"} <= metrics["masks"].keys()
    assert {"asr", "cross_acc"} <= metrics["victim"].keys() & metrics["tune"].keys()

    again = ChainRun(composed, "own", tmp_path / "again").run()
    assert [stage["status"] for stage in again["stages"]] == ["cached"] * 4
    assert all(", cached" in where for where in ChainRun(composed, "own", tmp_path / "third").found().values())


def test_a_grid_trains_what_comes_before_the_victim_once(attack, tmp_path):
    cells = [Cell("signs_mini", "input_aware", defense, 1) for defense in ("fine_tune", "nad")]
    nodes = {node.stage: node for node in connect(cells)}
    assert {"masks", "victim"} <= nodes.keys()
    assert nodes["victim"].needs == (nodes["masks"].name,)
    assert nodes["masks"].unmade(Store(tmp_path)) == ["masks"]
