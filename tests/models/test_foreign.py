import copy

import lightning.pytorch as pl
import pytest
import torch
from torch import nn

from lit_backdoor.bundle import save_bundle
from lit_backdoor.models import foreign
from lit_backdoor.models.foreign import ForeignClassifier, wrap_classifier
from lit_backdoor.recipe import load_factory, recipe

UNIT = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
VIT = {"image_size": 32, "patch_size": 8, "num_layers": 2, "num_heads": 2, "hidden_dim": 16, "mlp_dim": 16}
NETS = {
    "resnet18": ({}, "layer4", (512, 1, 1)),
    "densenet121": ({}, "features", (1024, 1, 1)),
    "vgg11_bn": ({}, "features", (512, 1, 1)),
    "mobilenet_v3_small": ({}, "features", (576, 1, 1)),
    "VisionTransformer": (VIT, "encoder.layers", (17, 16)),
}


def images(batch=4):
    return torch.rand(batch, 3, 32, 32, generator=torch.Generator().manual_seed(1))


class Net(pl.LightningModule):
    def __init__(self, width=8):
        super().__init__()
        self.trunk = nn.Sequential(nn.Conv2d(3, width, 3), nn.BatchNorm2d(width), nn.ReLU(inplace=True))
        self.classify = nn.Linear(width, 10)

    def forward(self, x):
        return self.classify(self.trunk(x).mean((2, 3)))


@pytest.mark.parametrize("name", NETS)
def test_torchvisions_nets_are_cut_by_layer_name(name):
    args, split, shape = NETS[name]
    classifier = ForeignClassifier(f"torchvision.models.{name}", {"num_classes": 10, **args}, split, 10, 32, **UNIT)
    classifier.eval()
    features = classifier.features(images())
    assert features.shape == (4, *shape)
    torch.testing.assert_close(classifier.head(features), classifier(images()))
    assert classifier.final_linear.out_features == 10
    assert len(classifier.last_layers(2)) == 2


def test_train_mode_counts_batches_once_and_equals_the_net():
    torch.manual_seed(0)
    one = wrap_classifier(Net(), split="trunk", num_classes=10, input_size=32, **UNIT).train()
    other = copy.deepcopy(one)
    torch.testing.assert_close(one.head(one.features(images())), other(images()))
    assert all(torch.equal(a, b) for a, b in zip(one.buffers(), other.buffers(), strict=True))


def test_a_lightning_module_is_wrapped_not_copied():
    net = Net()
    classifier = wrap_classifier(net, split="trunk", num_classes=10, input_size=32, mean=(0.5,) * 3, std=(0.2,) * 3)
    assert classifier.net is net
    torch.testing.assert_close(classifier.eval()(images()), net((images() - 0.5) / 0.2))


def test_the_recipe_makes_the_same_net():
    args = ("torchvision.models.squeezenet1_1", {"num_classes": 10}, "features", 10, 32, (0.0,) * 3, (1.0,) * 3)
    classifier = ForeignClassifier(*args)
    again = ForeignClassifier(**recipe(classifier)["init_args"])
    assert again.state_dict().keys() == classifier.state_dict().keys()


def test_a_wrapped_net_is_written_only_with_its_recipe():
    net = Net(4)
    kwargs = {"split": "trunk", "num_classes": 10, "input_size": 32, **UNIT}
    with pytest.raises(ValueError, match="'net' of WrappedClassifier is a Net object"):
        recipe(wrap_classifier(net, **kwargs))
    described = {"class_path": f"{__name__}.Net", "init_args": {"width": 4}}
    classifier = wrap_classifier(net, **kwargs, recipe=described)
    assert classifier.net is net
    assert recipe(classifier)["init_args"]["factory_args"] == {"width": 4}
    described["init_args"]["width"] = 5
    with pytest.raises(ValueError, match=r"these weights differ: \['classify.weight'"):
        wrap_classifier(net, **kwargs, recipe=described)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("torchvision.models.resnet81", "Did you mean 'resnet"),
        ("no_such_package.net", "No module named"),
        ("net", "Expected a dotted name such as"),
        ("math.pi", "to be a function or class that makes a net, got float"),
    ],
)
def test_a_path_that_leads_nowhere_is_an_error(path, message):
    with pytest.raises(ValueError, match=message):
        load_factory(path)


def test_a_factory_that_makes_no_net_is_an_error():
    with pytest.raises(ValueError, match=r"to make a torch.nn.Module, got dict"):
        ForeignClassifier("builtins.dict", {}, "x", 10, 32, **UNIT)


@pytest.mark.parametrize("described", [None, {"class_path": f"{__name__}.Net"}], ids=["object", "recipe"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_another_type_than_the_images_are_refused(dtype, described):
    with pytest.raises(ValueError, match=rf"Expected float32 weights, got {dtype}: call net.float\(\) first"):
        wrap_classifier(Net().to(dtype), split="trunk", num_classes=10, input_size=32, **UNIT, recipe=described)


def test_compiled_net_is_refused_with_what_to_give():
    net = torch.compile(nn.Sequential(nn.Flatten(), nn.Linear(192, 4)), backend="eager")
    with pytest.raises(ValueError, match="not compiled.* or its _orig_mod"):
        wrap_classifier(net, split="_orig_mod.0", num_classes=4, input_size=8, mean=(0.5,) * 3, std=(0.2,) * 3)


class Flattens(nn.Module):
    """Flattens by view, which maps laid out channels last do not allow."""

    def __init__(self):
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(4 * 64, 4)

    def forward(self, x):
        maps = torch.relu(self.conv(x))
        return self.fc(maps.view(len(maps), -1))


@pytest.mark.parametrize("described", [None, {"class_path": f"{__name__}.Flattens"}], ids=["object", "recipe"])
def test_net_that_flattens_by_view_is_not_laid_out_channels_last(described):
    net = Flattens()
    classifier = wrap_classifier(net, split="conv", num_classes=4, input_size=8, **UNIT, recipe=described)
    torch.testing.assert_close(classifier(images()[:, :, :8, :8]), net(images()[:, :, :8, :8].contiguous()))
    assert classifier.memory_format == torch.contiguous_format


@pytest.mark.parametrize(("last", "says"), [(nn.Softmax(1), "ends in softmax"), (nn.LogSoftmax(1), "ends in log-")])
def test_net_that_ends_in_softmax_is_warned_of(last, says):
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 36, 4), last)
    with pytest.warns(UserWarning, match=rf"{says}.*net\[:-1\]"):
        wrap_classifier(net, split="0", num_classes=4, input_size=8, **UNIT)


def test_net_with_values_that_are_not_finite_is_refused():
    net = Net()
    net.trunk[1].running_var[0] = torch.inf
    with pytest.raises(ValueError, match=r"1 tensors of the net hold NaN or infinity, such as 'trunk\.1\.running_var'"):
        wrap_classifier(net, split="trunk", num_classes=10, input_size=32, **UNIT)


class Views(Flattens):
    """Reads the batch's size off its input."""

    def forward(self, x):
        batch = x.size(0)
        return self.fc(torch.relu(self.conv(x)).view(batch, -1))


def test_net_that_reads_the_batch_is_cut_and_rebuilt_without_a_check(tmp_path, monkeypatch):
    classifier = ForeignClassifier(f"{__name__}.Views", {}, "conv", 4, 8, **UNIT).eval()
    small = images()[:, :, :8, :8]
    torch.testing.assert_close(classifier.head(classifier.features(small)), classifier(small))
    assert not ForeignClassifier(f"{__name__}.Flattens", {}, "conv", 4, 8, **UNIT).whole_batch
    bundle = save_bundle(tmp_path / "b", kind="suspect", module=classifier)
    monkeypatch.setattr(foreign, "check_split", lambda *args, **options: 1 / 0)
    again = bundle.build([__name__])
    torch.testing.assert_close(again.head(again.features(small)), classifier(small))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"net": Net}, "Expected a torch.nn.Module, got type"),
        ({"split": 3}, "Unknown layer '3'"),
        ({"num_classes": "10"}, "whole numbers of at least 1, got num_classes='10'"),
        ({"num_classes": 10.0}, "whole numbers of at least 1"),
        ({"input_size": None}, "whole numbers of at least 1"),
        ({"mean": 0.5}, "as many means as positive stds"),
        ({"mean": (float("nan"),) * 3}, "all of them finite"),
        ({"std": (0.2, -0.2, 0.2)}, "as many means as positive stds"),
        ({"recipe": {"init_args": {}}}, "Expected a recipe"),
        ({"recipe": "module.Net"}, "Expected a recipe"),
    ],
)
def test_arguments_of_wrong_kinds_are_refused(change, message):
    given = {"net": Net(), "split": "trunk", "num_classes": 10, "input_size": 32, **UNIT, **change}
    with pytest.raises(ValueError, match=message):
        wrap_classifier(given.pop("net"), **given)
