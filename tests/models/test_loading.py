"""Weights of timm and torchvision are recognized by their names and shapes."""

import json
import warnings

import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file

from lit_backdoor.bundle import open_bundle, save_bundle
from lit_backdoor.cli import main
from lit_backdoor.models import TimmClassifier, architectures, load_classifier
from lit_backdoor.models.architectures import _table, find_architectures, make_net, signature

# Ten families; the number of classes, and sizes and channels where they differ, must be read off the weights.
NETS = [
    ("torchvision:resnet18", {"num_classes": 10}),
    ("torchvision:resnet50", {"num_classes": 43}),
    ("torchvision:vgg16_bn", {"num_classes": 10}),
    ("torchvision:densenet121", {"num_classes": 7}),
    ("torchvision:mobilenet_v2", {"num_classes": 10}),
    ("torchvision:mobilenet_v3_small", {"num_classes": 10}),
    ("torchvision:efficientnet_b0", {"num_classes": 10}),
    ("torchvision:convnext_tiny", {"num_classes": 10}),
    ("torchvision:swin_t", {"num_classes": 10}),
    ("torchvision:vit_b_16", {"num_classes": 10}),
    ("torchvision:squeezenet1_1", {"num_classes": 10}),
    ("torchvision:shufflenet_v2_x1_0", {"num_classes": 10}),
    ("timm:resnet34", {"num_classes": 10}),
    ("timm:densenet121", {"num_classes": 10}),
    ("timm:vgg11_bn", {"num_classes": 10}),
    ("timm:mobilenetv3_large_100", {"num_classes": 10}),
    ("timm:efficientnet_b0", {"num_classes": 10}),
    ("timm:convnext_tiny", {"num_classes": 10}),
    ("timm:vit_tiny_patch16_224", {"num_classes": 10, "img_size": 160}),
    ("timm:swin_tiny_patch4_window7_224", {"num_classes": 10}),
    ("timm:regnety_004", {"num_classes": 10, "in_chans": 1}),
]


@pytest.mark.parametrize(("name", "args"), NETS, ids=[name for name, _ in NETS])
def test_architecture_is_found(name, args):
    fitting = find_architectures(make_net(name, **args).state_dict())
    assert name in [each.name for each in fitting]
    assert {(each.classes, each.channels) for each in fitting} == {(args["num_classes"], args.get("in_chans", 3))}
    assert {each.size for each in fitting} <= {args.get("img_size", each.size) for each in fitting}


@pytest.mark.parametrize("name", ["timm:resnet18", "torchvision:regnet_y_400mf", "timm:mobilenetv2_100"])
def test_table_is_that_of_the_installed_libraries(name):
    assert name in json.loads(_table().read_text())[signature(make_net(name).state_dict())].split()


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("torchvision:vit_b_16", {"image_size": 160}),
        ("torchvision:googlenet", {"aux_logits": False, "init_weights": False}),
        ("torchvision:inception_v3", {"aux_logits": False, "init_weights": False}),
    ],
)
def test_form_of_an_architecture_is_found(name, args):
    found = find_architectures(make_net(name, num_classes=10, **args).state_dict())
    [own] = [each for each in found if each.name == name]
    assert own.args == args
    assert own.size == args.get("image_size", own.size)


def test_names_that_the_installed_library_lacks_are_passed_over(tmp_path, monkeypatch):
    state = make_net("timm:test_resnet", num_classes=4).state_dict()
    table = tmp_path / "table.json"
    table.write_text(json.dumps({signature(state): "timm:of_tomorrow timm:test_resnet"}))
    monkeypatch.setattr(architectures, "_table", lambda: table)
    assert [each.name for each in find_architectures(state)] == ["timm:test_resnet"]


def quietly(*args, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return load_classifier(*args, **options)


def saved(path, net, prefix="", **around):
    state = {prefix + key: value for key, value in net.state_dict().items()}
    torch.save({"state_dict": state, **around} if around else state, path)
    return path


def test_foreign_file_gives_the_same_logits(tmp_path):
    net = torchvision.models.mobilenet_v3_small(num_classes=6).eval()
    path = saved(tmp_path / "w.pth", net, "module.", epoch=3, criterion=torch.ones(6))
    with pytest.warns(UserWarning, match=r"torchvision:mobilenet_v3_small; 6 classes; 224 px; .*split features"):
        found = load_classifier(path, mean=[0.0] * 3, std=[1.0] * 3)
    images = torch.rand(2, 3, 64, 64)
    torch.testing.assert_close(found(images), net(images))
    torch.testing.assert_close(found.head(found.features(images)), net(images))


@pytest.mark.parametrize(("channels", "prefix"), [(None, ""), (8, ""), (8, "module.")])
def test_small_resnet_is_found_in_any_width(tmp_path, channels, prefix):
    net = TimmClassifier("resnet18", num_classes=5, channels=channels).eval()
    found = quietly(saved(tmp_path / "w.pt", net.net, prefix), size=32)
    assert isinstance(found, TimmClassifier)
    torch.testing.assert_close(found(net.example()), net(net.example()))


def test_folder_of_timm(tmp_path):
    net = timm.create_model("test_resnet", num_classes=3).eval()
    save_file(net.state_dict(), tmp_path / "model.safetensors")
    config = {"architecture": "test_resnet", "num_classes": 3, "pretrained_cfg": {"mean": [0.1] * 3, "std": [0.3] * 3}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    found = quietly(tmp_path)
    assert (found.num_classes, found.mean) == (3, (0.1,) * 3)
    (tmp_path / "config.json").write_text(json.dumps({"architectures": ["ResNetForImageClassification"]}))
    with pytest.raises(ValueError, match="one of transformers"):
        load_classifier(tmp_path)


def test_pooling_that_a_folder_of_timm_notes_is_that_of_the_net(tmp_path):
    net = timm.create_model("test_resnet", num_classes=3, global_pool="max").eval()
    save_file(net.state_dict(), tmp_path / "model.safetensors")
    config = {"architecture": "test_resnet", "model_args": {"global_pool": "max"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    images = torch.rand(2, 3, 96, 96)
    found = quietly(tmp_path, mean=[0.0] * 3, std=[1.0] * 3)
    torch.testing.assert_close(found(images), net(images))


def test_raw_weights_are_found_beside_averaged_ones(tmp_path):
    net = timm.create_model("test_resnet", num_classes=3)
    state = net.state_dict()
    torch.save({f"{p}.{k}": v + (p == "model_ema") for p in ("model", "model_ema") for k, v in state.items()},
               tmp_path / "w.pt")  # fmt: skip
    with pytest.warns(UserWarning, match="several such nets, under 'model.', 'model_ema.'; the first is taken"):
        found = load_classifier(tmp_path / "w.pt")
    assert all(torch.equal(value, state[key]) for key, value in found.net.state_dict().items())


def test_unknown_and_wrong_architectures_are_asked_for(tmp_path):
    path = saved(tmp_path / "w.pt", torch.nn.Linear(3, 3))
    with pytest.raises(ValueError, match=r"to fit an architecture of timm or torchvision, got others, such as weight"):
        load_classifier(path)
    with pytest.raises(ValueError, match="Did you mean 'resnet"):
        load_classifier(path, "timm:resnet81")
    with pytest.raises(ValueError, match=r"to fit 'timm:resnet18'"):
        load_classifier(path, "timm:resnet18")
    resnet = saved(tmp_path / "r.pt", torchvision.models.resnet18(num_classes=4))
    with pytest.raises(ValueError, match="Expected 5 classes, but the weights in .* are for 4"):
        quietly(resnet, classes=5)


class Own(torch.nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.trunk = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU())
        self.fc = torch.nn.Linear(4, num_classes)

    def forward(self, images):
        return self.fc(self.trunk(images).mean((2, 3)))


def test_own_function_makes_the_net(tmp_path):
    found = quietly(saved(tmp_path / "w.pt", Own(3)), f"{__name__}.Own", size=16)
    assert (found.num_classes, found.split) == (3, "trunk")


def test_command_writes_a_bundle_that_opens(tmp_path, capsys):
    net = timm.create_model("test_resnet", num_classes=3)
    saved(tmp_path / "w.pt", net)
    (tmp_path / "names.txt").write_text("cat\ndog\nowl\n")
    arguments = [str(tmp_path / "w.pt"), "--arch", "timm:test_resnet", "--classes", str(tmp_path / "names.txt")]
    assert main(["import", *arguments, "--out", str(tmp_path / "b")]) == 0
    assert "split" in capsys.readouterr().out
    bundle = open_bundle(tmp_path / "b", "suspect")
    assert bundle.info["class_names"] == ["cat", "dog", "owl"]
    assert bundle.build().num_classes == 3


class Odd(torch.nn.Module):
    """Calls the number of classes and of channels as others do."""

    def __init__(self, n_classes=10, in_channels=3):
        super().__init__()
        self.trunk = torch.nn.Conv2d(in_channels, 4, 3)
        self.fc = torch.nn.Linear(4, n_classes)

    def forward(self, images):
        return self.fc(self.trunk(images).mean((2, 3)))


class Stubborn(Own):
    def forward(self, images):
        assert len(images[0, 0]) == 20, "images of 20 px only"
        return super().forward(images)


class Wide(Own):
    def __init__(self, num_classes, width):
        super().__init__(num_classes)


def test_other_names_of_classes_and_channels_are_known(tmp_path):
    found = quietly(saved(tmp_path / "w.pt", Odd(5, 1)), f"{__name__}.Odd", size=16)
    assert (found.num_classes, found.mean, found.split) == (5, (0.5,), "trunk")


@pytest.mark.parametrize(
    ("name", "says"), [("Stubborn", "AssertionError: images of 20 px only"), ("Wide", "missing 1 required .* 'width'")]
)
def test_net_that_cannot_be_made_or_run_is_an_error_that_says_what_to_check(tmp_path, name, says):
    path = saved(tmp_path / "w.pt", Own(3))
    with pytest.raises(ValueError, match=rf"{says}.*Check --arch, --classes and --size"):
        quietly(path, f"{__name__}.{name}", size=16)


def test_size_that_the_positions_of_a_vit_contradict_is_an_error(tmp_path):
    path = saved(tmp_path / "w.pt", timm.create_model("vit_tiny_patch16_224", num_classes=3))
    with pytest.raises(ValueError, match=r"Input height \(32\) doesn't match model"):
        quietly(path, "timm:vit_tiny_patch16_224", size=32)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"size": 0}, "size from 1 to 2,048 pixels, got 0"),
        ({"size": 10**6}, "size from 1 to 2,048 pixels, got 1000000"),
        ({"classes": 10**8}, "as many classes as the weights have outputs, got 100000000"),
        ({"std": [0.0, 1.0, 1.0]}, "std above 0"),
        ({"mean": [float("nan")] * 3}, "finite numbers as mean"),
        ({"mean": [0.5], "size": 16}, "as many values of --mean as the net has channels, 3"),
        ({"arch": "resnet18"}, "got 'resnet18'. Did you mean timm:resnet18 or torchvision:resnet18"),
        ({"arch": "resnet81"}, "timm:NAME, torchvision:NAME or your own module.function, got 'resnet81'"),
    ],
)
def test_wrong_options_are_refused(tmp_path, options, says):
    path = saved(tmp_path / "w.pt", Own(3))
    with pytest.raises(ValueError, match=says):
        quietly(path, **{"arch": f"{__name__}.Own", **options})


def test_full_paths_and_tags_name_architectures_of_libraries(tmp_path):
    path = saved(tmp_path / "w.pt", torchvision.models.squeezenet1_1(num_classes=3))
    for name in ("torchvision.models.squeezenet1_1", "torchvision.models.squeezenet.squeezenet1_1"):
        assert quietly(path, name, size=64).num_classes == 3
    path = saved(tmp_path / "t.pt", timm.create_model("test_resnet", num_classes=3))
    assert quietly(path, "timm:test_resnet.r160_in1k", size=64).num_classes == 3


@pytest.mark.parametrize("noted", [(32, 32, 3), [3, 32, 32], 32])
def test_size_that_a_checkpoint_notes_is_taken(tmp_path, noted):
    path = saved(tmp_path / "w.pt", Own(3), img_size=noted)
    assert quietly(path, f"{__name__}.Own").input_size == 32
    assert quietly(path, f"{__name__}.Own", size=16).input_size == 16


def test_size_that_would_fill_the_memory_must_be_given(tmp_path):
    path = saved(tmp_path / "w.pt", Own(3), img_size=10**6)
    with pytest.raises(ValueError, match="to say a size of 1 to 1024 px, got 1000000. Give --size"):
        quietly(path, f"{__name__}.Own")


def test_size_that_a_folder_notes_is_taken(tmp_path):
    save_file(timm.create_model("test_resnet", num_classes=3).state_dict(), tmp_path / "model.safetensors")
    config = {"architecture": "test_resnet", "pretrained_cfg": {"input_size": [3, 96, 96]}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert quietly(tmp_path).input_size == 96


def test_small_gray_resnet_is_found(tmp_path):
    net = TimmClassifier("resnet18", 5, 28, 8, (0.5,), (0.5,))
    found = quietly(saved(tmp_path / "w.pt", net.net), size=28)
    assert (found.input_size, found.mean, found.num_classes) == (28, (0.5,), 5)
    with pytest.raises(ValueError, match="at most 64 px for resnet18 with a 3x3 stem"):
        quietly(tmp_path / "w.pt", size=128)


def test_bundle_takes_no_options_that_it_holds(tmp_path):
    net = TimmClassifier("resnet18", num_classes=5, channels=4)
    save_bundle(tmp_path / "b", kind="suspect", module=net)
    assert load_classifier(tmp_path / "b", classes=5).num_classes == 5
    with pytest.raises(ValueError, match="Expected no size, mean with the bundle"):
        load_classifier(tmp_path / "b", size=64, mean=[0.5] * 3)
    with pytest.raises(ValueError, match="Expected 6 classes, but the weights in .* are for 5"):
        load_classifier(tmp_path / "b", classes=6)


@pytest.mark.parametrize("text", ["import sys; sys.exit()", "def broken(:", "nothing"])
def test_module_that_cannot_be_imported_is_an_error_of_one_line(tmp_path, monkeypatch, text):
    monkeypatch.syspath_prepend(tmp_path)
    name = f"module_{abs(hash(text))}"
    (tmp_path / f"{name}.py").write_text(text)
    with pytest.raises(ValueError, match=f"The module of '{name}.Net' cannot be imported"):
        quietly(saved(tmp_path / "w.pt", Own(3)), f"{name}.Net")


class Unsorted(torch.nn.Module):
    """Its names are not in the order of its layers."""

    def __init__(self, num_classes):
        super().__init__()
        self.stem = torch.nn.Conv2d(1, 8, 3)
        self.body = torch.nn.Conv2d(8, 6, 3)
        self.hidden = torch.nn.Linear(6, 9)
        self.classify = torch.nn.Linear(9, num_classes)

    def forward(self, images):
        return self.classify(self.hidden(self.body(self.stem(images)).mean((2, 3))))


def test_order_of_the_layers_is_the_nets_not_the_files(tmp_path):
    save_file({f"module.{key}": value for key, value in Unsorted(5).state_dict().items()}, tmp_path / "w.safetensors")
    found = quietly(tmp_path / "w.safetensors", f"{__name__}.Unsorted", size=16)
    assert (found.num_classes, found.mean, found.split) == (5, (0.5,), "hidden")
