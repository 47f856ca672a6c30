"""Which of several architectures weights are taken for."""

from pathlib import Path

import pytest
import timm
import torch
import torchvision

from lit_backdoor.models import choosing
from lit_backdoor.models.architectures import Architecture, find_architectures, make_net
from lit_backdoor.models.choosing import choose, not_found

FILE = Path("w.pt")


def test_the_same_net_under_two_names_is_the_shorter_one_and_the_other_statistics_are_said():
    state = timm.create_model("vit_tiny_patch16_224", num_classes=3).state_dict()
    found = find_architectures(state)
    assert found[0].name == "timm:deit_tiny_patch16_224"
    with pytest.warns(UserWarning, match=r"mean and std of timm:vit_tiny_patch16_224, but timm:deit_tiny_patch16_224"):
        assert choose(FILE, found, state).name == "timm:vit_tiny_patch16_224"


def fitting(*names):
    return [Architecture(name, 3, 3, 64, False, {}) for name in names]


@pytest.fixture
def unlike(monkeypatch):
    """Let no two architectures compute the same."""
    monkeypatch.setattr(choosing, "_output", lambda each, state: torch.tensor(float(len(each.name))))


@pytest.mark.usefixtures("unlike")
def test_architectures_that_compute_other_things_are_a_question():
    both = fitting("timm:tf_efficientnet_b0", "timm:efficientnet_b0")
    layers = {name for name, _ in make_net("timm:efficientnet_b0").named_modules()}
    for known in (set(), layers):
        with pytest.raises(ValueError, match=r"timm:tf_efficientnet_b0, timm:efficientnet_b0. Name one by --arch"):
            choose(FILE, both, {}, known)


@pytest.mark.usefixtures("unlike")
@pytest.mark.parametrize("prefix", ["", "module.", "model._orig_mod."])
def test_layers_without_weights_that_a_file_lists_tell_libraries_apart(prefix):
    names = [name for name, _ in make_net("torchvision:resnet50").named_modules()]
    found = choose(FILE, fitting("timm:resnet50", "timm:resnetaa50", "torchvision:resnet50"), {},
                   {f"{prefix}{name}" for name in [*names, "criterion"]})  # fmt: skip
    assert found.name == "torchvision:resnet50"


@pytest.mark.usefixtures("unlike")
def test_architecture_without_published_weights_is_left_out_and_said():
    with pytest.warns(UserWarning, match=r"not timm:resnetblur18, of which there are no published weights"):
        assert choose(FILE, fitting("timm:resnetblur18", "timm:resnet18"), {}).name == "timm:resnet18"


@pytest.mark.parametrize("scale", [1e6, 1e-6])
def test_outputs_are_compared_at_their_own_scale(scale):
    output = scale * torch.linspace(-1, 1, 8)
    assert choosing._alike(output + 1e-4 * scale, output)
    assert not choosing._alike(output + 1e-2 * scale, output)


def test_another_head_is_named():
    net = torchvision.models.resnet18()
    net.fc = torchvision.ops.MLP(512, [4])
    said = str(not_found(FILE, None, net.state_dict()))
    assert "got those of timm:resnet18 with another head: fc.0.weight, fc.0.bias" in said
    said = str(not_found(FILE, "torchvision:resnet18", net.state_dict()))
    assert "2 missing, such as fc.bias; 2 unexpected, such as fc.0.bias" in said
