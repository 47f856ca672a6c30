"""Which of several architectures weights are taken for."""

from pathlib import Path

import pytest
import timm
import torch
import torchvision

from lit_backdoor.models import choosing
from lit_backdoor.models.architectures import Architecture, find_architectures
from lit_backdoor.models.choosing import choose, not_found

FILE = Path("w.pt")


def test_the_same_net_under_two_names_is_the_shorter_one_and_the_other_statistics_are_said():
    state = timm.create_model("vit_tiny_patch16_224", num_classes=3).state_dict()
    fitting = find_architectures(state)
    assert fitting[0].name == "timm:deit_tiny_patch16_224"
    with pytest.warns(UserWarning, match=r"mean and std of timm:vit_tiny_patch16_224, but timm:deit_tiny_patch16_224"):
        assert choose(FILE, fitting, state).name == "timm:vit_tiny_patch16_224"


def test_architectures_that_compute_other_things_are_a_question(monkeypatch):
    outputs = {"timm:b": 1.0, "timm:a": 2.0}
    monkeypatch.setattr(choosing, "_output", lambda each, state: torch.tensor(outputs[each.name]))
    fitting = [Architecture(name, 3, 3, 8, {}) for name in outputs]
    with pytest.raises(ValueError, match=r"compute different things: timm:b, timm:a. Name one by --arch"):
        choose(FILE, fitting, {})


def test_another_head_is_named():
    net = torchvision.models.resnet18()
    net.fc = torchvision.ops.MLP(512, [4])
    said = str(not_found(FILE, None, net.state_dict()))
    assert "got those of timm:resnet18 with another head: fc.0.weight, fc.0.bias" in said
    said = str(not_found(FILE, "torchvision:resnet18", net.state_dict()))
    assert "2 missing, such as fc.bias; 2 unexpected, such as fc.0.bias" in said
