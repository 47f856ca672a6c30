"""What a chain's results say of what its defense knows."""

import pytest

from lit_backdoor.chain.compose import compose
from lit_backdoor.chain.grid.cells import Cell
from lit_backdoor.chain.grid.methods import access_of
from lit_backdoor.chain.knowledge import knowledge_of
from lit_backdoor.presets import list_configs

METHODS = sorted({path.parent.name for path in list_configs("defenses").values()})


@pytest.mark.parametrize("name", METHODS)
def test_data_of_a_defense_s_stages_is_what_its_method_needs(name):
    assert knowledge_of(compose(name))["access"] == access_of(Cell("signs", "badnets", name, 0))


@pytest.mark.parametrize("name", ["strip", "scale_up"])
def test_detector_of_inputs_sets_its_threshold_on_root_images(name):
    assert knowledge_of(compose(name)) == {"access": "root", "selection": "root"}


def test_detection_without_a_repair_has_access():
    assert knowledge_of(compose("nc/detect"))["access"] == "root"


@pytest.mark.parametrize("attack", ["label_consistent", "narcissus"])
def test_what_the_attacker_trains_is_not_the_defender_s(attack):
    chain = compose("clp", attack=attack)
    assert len(chain["stages"]) > len(compose("clp")["stages"])
    assert knowledge_of(chain)["access"] == "none"


def test_chain_without_a_defense_knows_nothing():
    chain = compose("strip")
    chain = {**chain, "stages": {"victim": chain["stages"]["victim"]}}
    assert knowledge_of(chain) == {"access": None, "selection": None}
