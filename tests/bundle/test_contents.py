"""What goes into a bundle comes out."""

import pytest
import tiny
import torch
from safetensors.torch import load_file
from torch import nn

from lit_backdoor.bundle import open_bundle, save_bundle
from lit_backdoor.models import TimmClassifier
from lit_backdoor.recipe import Recorded
from lit_backdoor.triggers import Attack, Patch


class Tied(Recorded, nn.Module):
    def __init__(self, width=3):
        super().__init__()
        self.first = nn.Linear(width, width)
        self.second = nn.Linear(width, width)
        self.second.weight = self.first.weight


class Learned(Patch):
    def __init__(self, size=3):
        super().__init__(size=size)
        self.strength = nn.Parameter(torch.zeros(2))


def test_net_comes_back_with_its_weights(path):
    net, again = tiny.classifier(), open_bundle(path, "suspect").build()
    assert type(again) is TimmClassifier
    assert not again.training
    assert all(torch.equal(value, again.state_dict()[key]) for key, value in net.state_dict().items())
    images = torch.rand(2, 3, 16, 16)
    assert torch.equal(net.eval()(images), again(images))


def test_layout_of_the_weights_survives(path):
    weight = open_bundle(path).build().net.layer1[0].conv1.weight
    assert weight.is_contiguous(memory_format=torch.channels_last)


def test_attack_comes_back(path):
    attack = open_bundle(path).attack()
    assert (attack.target, attack.rate, type(attack.trigger)) == (0, 0.25, Patch)


def test_tensors_and_numbers_come_back(tmp_path):
    given = {"indices": torch.arange(5), "scores": torch.rand(5)}
    bundle = save_bundle(tmp_path / "s", kind="selection", tensors=given, numbers={"share": 0.1}, meta={"more": [1]})
    again = open_bundle(tmp_path / "s", "selection")
    assert again.hash == bundle.hash
    assert again.numbers == {"share": 0.1}
    assert again.info["more"] == [1]
    assert all(torch.equal(again.tensors()[key], value) for key, value in given.items())
    with pytest.raises(ValueError, match="holds tensors, not a net"):
        again.build()
    assert again.attack() is None


def test_tied_weights_are_written_once_and_stay_tied(tmp_path):
    net = Tied()
    bundle = save_bundle(tmp_path / "t", kind="generator", module=net)
    assert bundle.info["tied"] == {"model.second.weight": "model.first.weight"}
    assert len(load_file(tmp_path / "t" / "weights.safetensors")) == 3
    again = bundle.build(trust=(__name__,))
    assert again.second.weight is again.first.weight
    assert torch.equal(again.first.weight, net.first.weight)


def test_learned_trigger_keeps_its_weights(tmp_path):
    trigger = Learned()
    trigger.strength.data.fill_(0.5)
    bundle = save_bundle(tmp_path / "l", kind="suspect", module=tiny.classifier(), attack=Attack(trigger))
    assert torch.equal(bundle.attack(trust=(__name__,)).trigger.strength, torch.full((2,), 0.5))


def test_views_of_one_memory_are_written_whole(tmp_path):
    base = torch.arange(10.0)
    bundle = save_bundle(tmp_path / "v", kind="targets", tensors={"all": base, "some": base[2:5], "odd": base[::2]})
    read = bundle.tensors()
    assert torch.equal(read["some"], base[2:5])
    assert torch.equal(read["odd"], base[::2])


def test_hash_is_of_the_contents_alone(tmp_path, path):
    def save(name, **options):
        given = {"kind": "suspect", "module": tiny.classifier(), "attack": tiny.attack(), "numbers": {"n": 1}}
        return save_bundle(tmp_path / name, **{**given, **options}).hash

    first = open_bundle(path).hash
    assert save("elsewhere") == first
    assert save("weights", module=tiny.classifier(seed=1)) != first
    assert save("attack", attack=tiny.attack(0.2)) != first
    assert save("numbers", numbers={"n": 2}) != first
    assert save("key", key="k") != first
    one, two = ({"suspect": {"hash": "h", "path": place}} for place in ("../a", "../b"))
    assert save("here", inputs=one) == save("there", inputs=two) != first


def test_numbers_that_do_not_exist_are_null(tmp_path):
    numbers = {"a": float("nan"), "b": [1.0, float("inf")], "c": {"d": float("-inf")}, "e": 2}
    bundle = save_bundle(tmp_path / "n", kind="targets", tensors={"x": torch.ones(1)}, numbers=numbers)
    assert "NaN" not in (tmp_path / "n" / "bundle.json").read_text()
    assert open_bundle(tmp_path / "n").numbers == {"a": None, "b": [1.0, None], "c": {"d": None}, "e": 2}
    assert bundle.numbers["a"] is None
