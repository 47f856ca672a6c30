"""Which architecture plain state dicts of timm and torchvision are taken for if nothing else is said."""

import re
import warnings

import pytest
import torch
from torch import nn

from lit_backdoor.models import load_classifier
from lit_backdoor.models.architectures import make_net

pytestmark = pytest.mark.slow

# More than ten families, each at a small size where it has no size of its own.
SMALL = 64
RIGHT = [
    ("torchvision:resnet18", SMALL, {}),
    ("torchvision:resnet50", SMALL, {}),
    ("torchvision:resnext50_32x4d", SMALL, {}),
    ("torchvision:vgg11_bn", SMALL, {}),
    ("torchvision:alexnet", SMALL, {}),
    ("torchvision:densenet121", SMALL, {}),
    ("torchvision:mobilenet_v2", SMALL, {}),
    ("torchvision:mobilenet_v3_small", SMALL, {}),
    ("torchvision:efficientnet_b0", SMALL, {}),
    ("torchvision:convnext_tiny", SMALL, {}),
    ("torchvision:swin_t", SMALL, {}),
    ("torchvision:vit_b_16", None, {"image_size": SMALL}),
    ("torchvision:regnet_y_400mf", SMALL, {}),
    ("torchvision:squeezenet1_1", SMALL, {}),
    ("torchvision:shufflenet_v2_x1_0", SMALL, {}),
    ("torchvision:mnasnet1_0", SMALL, {}),
    ("torchvision:googlenet", SMALL, {}),
    ("torchvision:googlenet", SMALL, {"aux_logits": False}),
    ("torchvision:inception_v3", 128, {"aux_logits": False}),
    ("timm:resnet18", SMALL, {}),
    ("timm:resnet26d", SMALL, {}),
    ("timm:resnetv2_18", SMALL, {}),
    ("timm:densenet121", SMALL, {"in_chans": 1}),
    ("timm:convnext_nano", SMALL, {}),
    ("timm:vit_tiny_patch16_224", None, {"img_size": SMALL}),
    ("timm:deit_tiny_patch16_224", None, {"img_size": SMALL}),
    ("timm:deit_tiny_distilled_patch16_224", None, {"img_size": SMALL}),
    ("timm:swin_tiny_patch4_window7_224", None, {}),
    ("timm:mixer_s32_224", None, {}),
    ("timm:mnasnet_100", SMALL, {}),
    ("timm:regnety_004", SMALL, {}),
    ("timm:mobilevit_xxs", SMALL, {}),
    ("timm:ghostnet_100", SMALL, {}),
    ("timm:repvgg_a0", SMALL, {}),
    ("timm:dla34", SMALL, {}),
    ("timm:poolformer_s12", SMALL, {}),
]
# Nets whose weights have the names and shapes of another one that computes other things.
ASKED = [
    "timm:resnet50",
    "timm:resnetaa50",
    "timm:efficientnet_b0",
    "timm:tf_efficientnet_b0",
    "timm:efficientnet_lite0",
    "timm:mobilenetv3_small_100",
]


def trained(net, shape):
    """Give a net what a training gives: statistics of batch norms that fit, and nothing that is all zero or one."""
    draws = torch.Generator().manual_seed(0)
    for name, value in net.named_parameters():
        scales = (value.ndim == 1 and name.endswith(("weight", "gamma"))) or "layer_scale" in name
        if scales or value.ndim < 2 or value.std() == 0:
            value.data.uniform_(0.5 if scales else -0.1, 1.5 if scales else 0.1, generator=draws)
    for module in net.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.momentum = 1.0
    with torch.no_grad():
        net.train()(torch.randn(2, *shape, generator=draws))
    return net.eval()


def imported(path, name, size, args):
    """Import a net's plain state dict without its name; gives the classifier and the net."""
    torch.manual_seed(0)
    net = make_net(name, "cpu", num_classes=10, **args)
    side = size or next((args[key] for key in ("img_size", "image_size") if key in args), 224)
    torch.save(trained(net, (args.get("in_chans", 3), side, side)).state_dict(), path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return load_classifier(path, size=size), net


@pytest.mark.parametrize(("name", "size", "args"), RIGHT)
def test_guess_computes_what_the_net_does(tmp_path, name, size, args):
    found, net = imported(tmp_path / "w.pth", name, size, args)
    side = found.input_size
    images = torch.rand(2, len(found.mean), side, side, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = net(found.normalize(images).contiguous())
        assert expected.shape == (2, 10)
        assert (expected[0] - expected[1]).abs().max() > 0
        torch.testing.assert_close(found(images), expected, rtol=0, atol=1e-2 * float(expected.std()))


@pytest.mark.parametrize("name", ASKED)
def test_nets_that_weights_do_not_tell_apart_are_a_question(tmp_path, name):
    with pytest.raises(ValueError, match=rf"compute different things: .*\b{re.escape(name)}\b.* Name one by --arch"):
        imported(tmp_path / "w.pth", name, SMALL, {})
