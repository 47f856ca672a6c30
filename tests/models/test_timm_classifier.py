import pytest
import torch
from torch import nn

from lit_backdoor.models.timm_classifier import TimmClassifier
from lit_backdoor.recipe import recipe

TINY = {
    "resnet18": ({"channels": 8}, (64, 4, 4)),
    "resnet50": ({"channels": 4}, (128, 4, 4)),
    "resnetv2_18": ({"channels": 8}, (64, 4, 4)),
    "densenet121": ({"channels": 4}, (128, 4, 4)),
    "vgg16_bn": ({"channels": 4}, (32, 1, 1)),
    "vit_tiny_patch16_224": ({"channels": 32, "net_args": {"depth": 2, "num_heads": 4}}, (32,)),
    "mobilenetv3_small_050": ({}, (288, 2, 2)),
}


def make(name="resnet18", **kwargs):
    return TimmClassifier(name, **{**TINY[name][0], **kwargs})


def images(batch=4, size=32):
    return torch.rand(batch, 3, size, size, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", TINY)
@pytest.mark.parametrize("mode", [True, False])
def test_head_of_features_is_the_net(name, mode):
    torch.manual_seed(0)
    classifier = make(name).train(mode)
    torch.manual_seed(1)
    features = classifier.features(images())
    split = classifier.head(features)
    torch.manual_seed(1)
    assert features.shape == (4, *TINY[name][1])
    torch.testing.assert_close(split, classifier(images()))
    assert split.shape == (4, 10)


@pytest.mark.parametrize("name", TINY)
def test_agrees_with_timms_own_forward(name):
    classifier = make(name, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4)).eval()
    normalized = (images() - torch.tensor([0.5, 0.4, 0.3])[:, None, None]) / torch.tensor([0.2, 0.3, 0.4])[
        :, None, None
    ]
    torch.testing.assert_close(classifier.logits(images()), classifier.net(normalized))


def test_vit_that_averages_tokens_agrees_with_timms_own_forward():
    args = {"depth": 1, "num_heads": 2, "global_pool": "avg"}
    for fc_norm, shape in ((True, (4, 32)), (False, (4, 65, 32))):
        classifier = make("vit_tiny_patch16_224", net_args=args | {"fc_norm": fc_norm}).eval()
        assert classifier.features(images()).shape == shape
        torch.testing.assert_close(classifier(images()), classifier.net(classifier.normalize(images())))


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("deit_tiny_distilled_patch16_224", {}),  # two heads, whose logits are averaged
        ("deit3_small_patch16_224", {}),
        ("vit_tiny_patch16_224", {"class_token": False, "global_pool": "avg"}),
    ],
)
def test_vit_of_another_build_agrees_with_timms_own_forward(name, args):
    torch.manual_seed(0)
    classifier = TimmClassifier(name, channels=32, net_args={"depth": 1, **args}).eval()
    with torch.no_grad():
        for weight in classifier.parameters():  # heads start at zero
            weight.add_(0.05 * torch.randn_like(weight))
    torch.testing.assert_close(classifier(images(3)), classifier.net(classifier.normalize(images(3))))


@pytest.mark.parametrize("split", [None, "layer3"])
def test_one_forward_updates_batch_statistics_once(split):
    classifier = make(split=split).train()
    classifier.head(classifier.features(images()))
    counts = {int(m.num_batches_tracked) for m in classifier.modules() if isinstance(m, nn.BatchNorm2d)}
    assert counts == {1}


def test_a_named_split_moves_the_cut():
    classifier = make(split="layer2").eval()
    features = classifier.features(images())
    assert features.shape == (4, 16, 16, 16)
    torch.testing.assert_close(classifier.head(features), classifier(images()))


def test_resnet18_of_base_width_16_has_about_700k_parameters():
    classifier = TimmClassifier(channels=16)
    assert 690_000 < sum(p.numel() for p in classifier.parameters()) < 720_000
    assert classifier.net.conv1.out_channels == 16
    assert classifier.net.conv1.kernel_size == (3, 3)


def test_large_images_keep_the_large_stem():
    classifier = make(input_size=96)
    assert classifier.net.conv1.stride == (2, 2)
    assert classifier.features(images(2, 96)).shape == (2, 64, 3, 3)


@pytest.mark.parametrize("name", TINY)
def test_the_recipe_makes_the_same_net(name):
    classifier = make(name, split="layer4" if name == "resnet18" else None)
    described = recipe(classifier)
    again = TimmClassifier(**described["init_args"])
    assert described["class_path"].endswith("TimmClassifier")
    again.load_state_dict(classifier.state_dict())
    torch.testing.assert_close(again.eval()(images()), classifier.eval()(images()))


def test_the_stem_is_initialized_as_resnets_convolutions_are():
    torch.manual_seed(0)
    weight = TimmClassifier(channels=64).net.conv1.weight
    assert weight.std().item() == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.1)


@pytest.mark.parametrize("name", ["resnetv2_18", "vgg16_bn", "densenet121"])
def test_the_final_layer_is_linear(name):
    classifier = make(name)
    assert isinstance(classifier.final_linear, nn.Linear)
    assert classifier.final_linear.out_features == 10


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"name": "resnet81"}, "Did you mean 'resnet"),
        ({"name": "hf-hub:someone/net"}, "not followed"),
        ({"name": "resnet18", "channels": 7}, "even width"),
        ({"name": "efficientnet_b0", "channels": 8}, "channels=None"),
        ({"name": "resnet18", "split": "layer9"}, "Did you mean 'layer"),
        ({"name": "resnet18", "net_args": {"checkpoint_path": "x"}}, "shape the net only"),
        ({"name": "resnet18", "net_args": {"deepness": 3}}, "deepness"),
        ({"std": (0.2, 0.0, 0.2)}, "positive"),
        ({"std": (0.2, float("nan"), 0.2)}, "positive"),
        ({"input_size": 0}, "whole numbers of at least 1, .* input_size=0"),
        ({"num_classes": -1}, "num_classes.* of at least 1, got num_classes=-1"),
        ({"name": "test_vit3"}, "for images of 32x32, but 'test_vit3' failed"),
        ({"name": "mixer_s32_224"}, "for images of 32x32, but 'mixer_s32_224' failed.*img_size: 32"),
    ],
)
def test_bad_arguments_are_refused(kwargs, message):
    with pytest.raises(ValueError, match=message):
        TimmClassifier(**kwargs)
