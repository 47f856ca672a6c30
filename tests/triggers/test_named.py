"""Attacks by name."""

import pytest
import torch
from trigger_parts import need_extra, stamp

from lit_backdoor.data import BackdoorDataModule, SyntheticSigns
from lit_backdoor.presets import list_configs
from lit_backdoor.recipe import recipe
from lit_backdoor.triggers import AllToAll, Attack, Patch, named_attack


@pytest.mark.parametrize("name", list(list_configs("attacks")))
def test_every_shipped_attack_is_built(name):
    need_extra(name)
    attack = named_attack(name)
    assert isinstance(attack, Attack)
    images = torch.rand(2, 3, 32, 32)
    if attack.trigger.stamps:
        assert stamp(attack.trigger, "forward", images, torch.arange(2)).shape == images.shape


def test_name_says_what_the_file_says():
    attack = named_attack("badnets_a2a")
    assert isinstance(attack.trigger, Patch)
    assert isinstance(attack.policy, AllToAll)


def test_file_and_name_give_the_same(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(list_configs("attacks")["wanet"].read_text())
    assert recipe(named_attack(str(file))) == recipe(named_attack("wanet"))


def test_data_module_takes_a_name():
    source = SyntheticSigns(train_per_class=20, test_per_class=2)
    data = BackdoorDataModule(source, attack="badnets")
    assert recipe(data.attack) == recipe(named_attack("badnets"))
    assert data.counts["poison"] > 0


def test_unknown_name_gives_the_nearest():
    with pytest.raises(ValueError, match="Unknown attack 'badnet'. Did you mean 'badnets'"):
        BackdoorDataModule(SyntheticSigns(train_per_class=20), attack="badnet")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("class_path: lit_backdoor.triggers.Patch", "got Patch"),
        ("just words", "got str"),
        ("a: [", "is not YAML"),
        ("{class_path: os.system, init_args: {command: ls}}", "none"),
    ],
)
def test_file_of_something_else_is_an_error(tmp_path, text, said):
    file = tmp_path / "other.yaml"
    file.write_text(text)
    with pytest.raises(ValueError, match=said):
        named_attack(str(file))
