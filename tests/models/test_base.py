import pytest
import torch
from PIL import Image

from lit_backdoor.models.timm_classifier import TimmClassifier

IMAGES = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def classifier():
    torch.manual_seed(0)
    return TimmClassifier(channels=8).eval()


def test_taps_equal_hooks_and_carry_gradients(classifier):
    names = ["layer4.1.conv2", "layer3.0.bn1", "fc"]
    seen = {}
    for name in names:
        classifier.net.get_submodule(name).register_forward_hook(
            lambda _m, _i, output, name=name: seen.__setitem__(name, output.clone())
        )
    logits = classifier(IMAGES)
    images = IMAGES.clone().requires_grad_()
    taps = classifier.taps(images, names)
    assert list(taps) == names
    for name in names:
        torch.testing.assert_close(taps[name], seen[name])
    torch.testing.assert_close(taps["fc"], logits)
    taps["layer4.1.conv2"].square().sum().backward()
    assert images.grad.abs().sum() > 0


def test_taps_are_not_changed_by_layers_that_work_in_place(classifier):
    assert classifier.taps(IMAGES, ["layer1.0.bn1"])["layer1.0.bn1"].min() < 0  # an in-place ReLU follows


def test_taps_leave_no_hooks(classifier):
    classifier.taps(IMAGES, ["layer1"])
    assert not any(module._forward_hooks for module in classifier.modules())


def test_last_layers_counts_17_convolutions_of_resnet18_without_shortcuts(classifier):
    names = classifier.last_layers(100)
    assert names[:3] == ["layer4.1.conv2", "layer4.1.conv1", "layer4.0.conv2"]
    assert names[-1] == "conv1"
    assert len(names) == 17
    assert classifier.last_layers(1) == ["layer4.1.conv2"]


def test_last_layers_names_blocks(classifier):
    assert classifier.last_layers(100, "block") == [f"layer{i}.{j}" for i in (4, 3, 2, 1) for j in (1, 0)]
    preact = TimmClassifier("resnetv2_18", channels=8)
    assert preact.last_layers(1, "block") == ["stages.3.blocks.1"]
    assert preact.last_layers(1) == ["stages.3.blocks.1.conv2"]


def test_last_layers_of_a_transformer_are_blocks():
    vit = TimmClassifier("vit_tiny_patch16_224", channels=32, net_args={"depth": 3})
    assert vit.last_layers(2) == ["blocks.2", "blocks.1"]


def test_looking_for_layers_leaves_modes_and_statistics(classifier):
    classifier.train()
    classifier.net.bn1.eval()
    before = {key: value.clone() for key, value in classifier.state_dict().items()}
    classifier.last_layers(2)
    assert classifier.training
    assert classifier.net.layer1.training
    assert not classifier.net.bn1.training
    assert all(torch.equal(before[key], value) for key, value in classifier.state_dict().items())


def test_layer_names_are_those_of_the_net(classifier):
    assert "layer4.1.conv2" in classifier.layer_names()
    assert "" not in classifier.layer_names()


def test_the_final_linear_layer_is_found(classifier):
    assert classifier.final_linear is classifier.net.fc
    assert classifier.final_linear_name == "fc"


def test_mean_and_std_are_no_part_of_the_state(classifier):
    assert all(key.startswith("net.") for key in classifier.state_dict())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda c: c.taps(IMAGES, ["layer4.1.conv9"]), "Unknown layer 'layer4.1.conv9'. Did you mean 'layer4.1.conv"),
        (lambda c: c.last_layers(0), "at least one"),
        (lambda c: c.last_layers(1, "convs"), "Did you mean 'conv'"),
        (lambda c: TimmClassifier("vgg16_bn", channels=4).last_layers(1, "block"), "kind 'block'"),
    ],
)
def test_bad_arguments_are_refused(classifier, call, message):
    with pytest.raises(ValueError, match=message):
        call(classifier)


@pytest.mark.parametrize("shape", [(2, 1, 16, 16), (2, 4, 16, 16), (3, 16, 16)])
def test_images_of_other_channels_than_the_mean_are_refused(classifier, shape):
    with pytest.raises(ValueError, match=r"Expected images \[B, 3, H, W\].*one mean and one std per channel"):
        classifier(torch.rand(shape))


def test_a_gray_classifier_sees_colors_as_pillow_does():
    gray = TimmClassifier(channels=8, mean=(0.5,), std=(0.5,)).eval()
    torch.testing.assert_close(gray(IMAGES[:, :1].expand(-1, 3, -1, -1)), gray(IMAGES[:, :1]))
    color = torch.tensor([200, 100, 50], dtype=torch.uint8).view(3, 1, 1).expand(3, 32, 32)
    seen = torch.tensor(Image.new("RGB", (1, 1), (200, 100, 50)).convert("L").getpixel((0, 0))) / 255
    shown = gray.normalize(color[None] / 255) / 2 + 0.5
    torch.testing.assert_close(shown, seen.expand(1, 1, 32, 32), atol=1 / 255, rtol=0)
