"""Every file of configs/attacks is an attack."""

import copy
import json
from pathlib import Path

import pytest
import torch
import yaml
from jsonargparse import ArgumentParser
from trigger_parts import need_extra, stamp

from lit_backdoor.recipe import rebuild, recipe
from lit_backdoor.triggers import AllToAll, Attack

FOLDER = Path(__file__).parents[2] / "configs" / "attacks"
FILES = sorted(FOLDER.glob("*.yaml"))
NAMES = {
    *("badnets", "badnets_a2a", "badnets_2x2", "badnets_3x3", "badnets_7", "badnets_9", "badnets_15"),
    *("blend", "blend_a2a", "blend_gaussian", "sig", "sig_paper", "sig_a2a", "wanet", "wanet_a2a"),
    *("batt", "batt_a2a", "atclean_adaptive", "atclean_adaptive_a2a", "filter", "filter_a2a", "one_to_one"),
    *("painted_mask", "sunglasses", "filter_regional", "badnets_regions", "bpp", "bpp_paper"),
    *("filter_gotham", "filter_nashville", "filter_kelvin", "filter_lomo", "filter_toaster", "chessboard", "lf"),
    *(
        "composite",
        "refool",
        "lira",
        "input_aware",
        "input_aware_paper",
        "wanet_trained",
        "dynamic",
        "trojannn",
        "issba",
    ),
    *("label_consistent", "label_consistent_paper", "narcissus", "narcissus_paper", "combat", "combat_paper"),
    *("grond", "grond_paper", "dfst", "dfst_d3", "trigger_free"),
    *("adap_blend", "adap_blend_paper", "adap_patch", "adap_patch_paper", "belt", "belt_paper", "ctrl", "ftrojan"),
}


def build(settings):
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--attack", type=Attack)
    return parser.instantiate(parser.parse_object({"attack": copy.deepcopy(settings)})).attack


def load(path):
    need_extra(path.stem)
    written = yaml.safe_load(path.read_text())
    return build(written.get("attack", written))


def test_all_are_there():
    assert {path.stem for path in FILES} >= NAMES


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_parses_and_runs(path):
    attack = load(path)
    assert isinstance(attack, Attack)
    attack.check(10)
    roles = attack.roles(torch.arange(4000) % 10, {"sunglasses": torch.arange(4000) % 2})
    assert (roles == 1).any()
    assert (roles == 2).any() == (attack.cover_rate > 0)
    images = torch.rand(2, 3, 32, 32)
    if attack.trigger.stamps:
        assert stamp(attack.trigger, "cover", images, torch.arange(2)).shape == images.shape


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_begins_with_a_comment(path):
    assert path.read_text().startswith("# ")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_what_is_recorded_builds_the_same_attack(path):
    attack = load(path)
    again = rebuild(json.loads(json.dumps(recipe(attack))))
    assert recipe(again) == recipe(attack)
    images, index = torch.rand(2, 3, 32, 32), torch.arange(2)
    if attack.trigger.stamps and not attack.trigger.state_dict():
        for way in ("forward", "poison", "cover"):
            assert torch.equal(*(stamp(one.trigger, way, images, index) for one in (again, attack)))


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*_a2a.yaml")), ids=lambda path: path.stem)
def test_all_to_all_changes_only_the_policy(path):
    many = load(path)
    one = load(path.with_name(path.name.replace("_a2a", "")))
    assert isinstance(many.policy, AllToAll)
    assert recipe(many.trigger) == recipe(one.trigger)
    if path.stem != "sig_a2a":  # sig is a clean-label attack, whose rate is one of the target class
        assert (many.rate, many.cover_rate) == (one.rate, one.cover_rate)
