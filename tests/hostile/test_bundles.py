"""Hostile and broken bundles, through ``test --bundle``."""

import json
import os
import shutil

import pytest
import tiny
import torch
from hostile_parts import assert_refused, build, data_file, rehashed
from safetensors.torch import load_file, save_file

from lit_backdoor.bundle import save_bundle

MODELS = "lit_backdoor.models."
SIDES = {"num_classes": 4, "input_size": 16}
FOREIGN = {"split": "0", **SIDES, "mean": [0.0] * 3, "std": [1.0] * 3}


def net(model, /, **args):
    return {"class_path": MODELS + model, "init_args": args}


def foreign(factory, split="0", /, **args):
    return net("ForeignClassifier", factory=factory, factory_args=args, **{**FOREIGN, "split": split})


def nested(depth):
    inner = net("UNet")
    for _ in range(depth):
        inner = net("Purified", purifier=inner, classifier=inner if depth < 20 else net("UNet"))
    return inner


# What the bundle says its net is; none of these may be built, called or loaded.
DESCRIBED = {
    "os.system": ({"class_path": "os.system", "init_args": {"command": "touch ../marker"}}, "allow-list"),
    "torch.load": ({"class_path": "torch.load", "init_args": {"f": "x"}}, "allow-list"),
    "builtins.eval": ({"class_path": "builtins.eval", "init_args": {}}, "allow-list"),
    "own function": ({"class_path": "lit_backdoor.cli.main", "init_args": {"args": ["demo"]}}, "recorded"),
    "own helper": ({"class_path": "lit_backdoor.bundle.shutil.rmtree", "init_args": {"path": "../precious"}}, ""),
    "own module's os": ({"class_path": "lit_backdoor.cli.os", "init_args": {}}, "recorded"),
    "no class path": ({"class_path": 3}, ""),
    "no net": ({"class_path": "lit_backdoor.triggers.AllToAll", "init_args": {}}, ""),
    "a text": ("a text", "net"),
    "a list": ([1, 2], "net"),
    "factory os.system": (foreign("os.system", command="touch ../marker"), "allow-list"),
    "factory Popen": (foreign("subprocess.Popen", args=["touch", "../marker"]), "allow-list"),
    "factory rmtree": (foreign("shutil.rmtree", path="../precious"), "allow-list"),
    "get_model": (foreign("torchvision.models.get_model", name="resnet18"), "builds no classifier"),
    "get_weight": (foreign("torchvision.models.get_weight", name="x"), "builds no classifier"),
    "detector": (foreign("torchvision.models.detection.fasterrcnn_resnet50_fpn"), "builds no classifier"),
    "segmentation": (foreign("torchvision.models.segmentation.deeplabv3_resnet50"), "builds no classifier"),
    "backbone": (foreign("torchvision.models.fcn_resnet50", weights_backbone="DEFAULT"), "builds no classifier"),
    "quantized": (foreign("torchvision.models.quantization.resnet18", quantize=True), "could not be built"),
    "video": (foreign("torchvision.models.video.r3d_18"), "builds no classifier"),
    "factory with weights": (foreign("torchvision.models.resnet18", "conv1", weights="DEFAULT"), "do not fit"),
    "factory pretrained": (foreign("torchvision.models.resnet18", "conv1", pretrained=True), "do not fit"),
    "hub": (net("TimmClassifier", name="hf-hub:timm/resnet18.a1_in1k", **SIDES), "Addresses"),
    "local folder": (net("TimmClassifier", name="local-dir:/etc", **SIDES), "Addresses"),
    "timm pretrained": (net("TimmClassifier", name="resnet10t", pretrained=True, **SIDES), "do not fit"),
    "timm file": (net("TimmClassifier", name="resnet10t", net_args={"checkpoint_path": "x"}, **SIDES), "net_args"),
    "timm overlay": (net("TimmClassifier", name="resnet10t", net_args={"pretrained_cfg": {"url": "x"}}, **SIDES), ""),
    "many classes": (net("TimmClassifier", name="resnet18", num_classes=10**7, input_size=16), "far larger"),
    "classes of petabytes": (net("TimmClassifier", name="resnet18", num_classes=10**12, input_size=16), "up to"),
    "wide": (net("TimmClassifier", name="resnet18", channels=10**5, **SIDES), "far larger"),
    "deep": (net("TimmClassifier", name="vit_tiny_patch16_224", net_args={"depth": 10**6}, **SIDES), "far larger"),
    "endless": (net("TimmClassifier", name="vit_tiny_patch16_224", net_args={"depth": 10**12}, **SIDES), "up to"),
    "large images": (net("TimmClassifier", name="vit_tiny_patch16_224", num_classes=4, input_size=10**6), "far larger"),
    "large VGG": (net("TimmClassifier", name="vgg19_bn", **SIDES), "do not fit"),
    "large generator": (net("UNet", base=10**5), "far larger"),
    "deep generator": (net("UNet", base=2, downs=10**6), ""),
    "foreign giant": (foreign("torchvision.models.vit_h_14", "encoder"), "far larger"),
    "negative": (net("TimmClassifier", name="resnet18", num_classes=-4, input_size=16), "num_classes"),
    "list for a name": (net("TimmClassifier", name=["a"], **SIDES), ""),
    "unknown argument": (net("UNet", bsae=4), "could not be built"),
    "nested": (nested(300), ""),
    "doubled": (nested(12), ""),
    "split nowhere": (foreign("torchvision.models.resnet18", "layer9"), "layer"),
}


@pytest.fixture
def path(tmp_path):
    save_bundle(tmp_path / "work" / "b", kind="suspect", module=tiny.classifier(), attack=tiny.attack())
    return tmp_path / "work" / "b"


def assert_bundle_refused(path, *says):
    assert_refused(path.parent.parent, (build, "b"), *says)


def test_command_says_the_same(path):
    rehashed(path, model=DESCRIBED["many classes"][0])
    assert_refused(path.parent.parent, ["test", "--bundle", "b", "--config", data_file(path.parent)], "far larger")


@pytest.mark.parametrize("name", DESCRIBED)
def test_net_that_is_not_built(path, name):
    described, says = DESCRIBED[name]
    rehashed(path, model=described)
    assert_bundle_refused(path, says)


def changed(path, change):
    weights = load_file(path / "weights.safetensors")
    weights |= change(weights)
    save_file(weights, path / "weights.safetensors")
    rehashed(path)


FIRST = "model.net.conv1.weight"
WEIGHTS = {
    "whole numbers": (lambda w: {FIRST: w[FIRST].int()}, "of another type"),
    "complex": (lambda w: {FIRST: w[FIRST].to(torch.complex64)}, "of another type"),
    "logical": (lambda w: {FIRST: w[FIRST] > 0}, "of another type"),
    "NaN": (lambda w: {FIRST: w[FIRST] * torch.nan}, "not finite"),
    "infinity": (lambda w: {FIRST: w[FIRST] / 0}, "not finite"),
    "other shape": (lambda w: {FIRST: w[FIRST].flatten()}, "of another shape"),
    "one more": (lambda w: {"model.net.more": torch.ones(1)}, "unexpected"),
    "half counted": (lambda w: {"model.net.bn1.num_batches_tracked": torch.tensor(0.5)}, "of another type"),
}


@pytest.mark.parametrize("name", WEIGHTS)
def test_weights_that_no_net_takes(path, name):
    change, says = WEIGHTS[name]
    changed(path, change)
    assert_bundle_refused(path, says)


def header(path, text, size=None):
    (path / "weights.safetensors").write_bytes((size or len(text)).to_bytes(8, "little") + text.encode())
    rehashed(path)


def symlink(path, target):
    path.unlink()
    path.symlink_to(target)


BROKEN = {
    "no json": (lambda p: (p / "bundle.json").write_text(""), "damaged"),
    "no weights": (lambda p: (p / "weights.safetensors").unlink(), "missing"),
    "cut json": (lambda p: (p / "bundle.json").write_text((p / "bundle.json").read_text()[:200]), "damaged"),
    "cut weights": (lambda p: os.truncate(p / "weights.safetensors", 100), "truncated"),
    "binary json": (lambda p: (p / "bundle.json").write_bytes(bytes(range(256))), "damaged"),
    "deep json": (lambda p: (p / "bundle.json").write_text("[" * 10**6), "damaged"),
    "long json": (lambda p: (p / "bundle.json").write_text("[" + "0," * 10**7 + "0]"), "damaged"),
    "long number": (lambda p: (p / "bundle.json").write_text('{"format": ' + "9" * 10**6 + "}"), "damaged"),
    "json is a folder": (lambda p: ((p / "bundle.json").unlink(), (p / "bundle.json").mkdir()), "Expected a bundle"),
    "json is endless": (lambda p: symlink(p / "bundle.json", "/dev/zero"), "Expected a bundle"),
    "weights are endless": (lambda p: symlink(p / "weights.safetensors", "/dev/zero"), "missing"),
    "weights wait": (lambda p: ((p / "weights.safetensors").unlink(), os.mkfifo(p / "weights.safetensors")), "missing"),
    "links in a circle": (lambda p: (shutil.rmtree(p), p.symlink_to(p)), "Expected a bundle"),
    "empty weights": (lambda p: ((p / "weights.safetensors").write_bytes(b""), rehashed(p)), "cannot be read"),
    "header of terabytes": (lambda p: header(p, "{}", 10**12), "cannot be read"),
    "tensor of terabytes": (
        lambda p: header(p, json.dumps({"a": {"dtype": "F32", "shape": [10**12], "data_offsets": [0, 4 * 10**12]}})),
        "cannot be read",
    ),
    "overlapping": (
        lambda p: header(p, json.dumps({n: {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]} for n in "ab"})),
        "cannot be read",
    ),
    "two names": (lambda p: rehashed(p, class_names=["a", "a", "b", "c"]), "class_names"),
    "tied over": (lambda p: rehashed(p, tied={FIRST: "model.net.fc.bias"}), "of another shape"),
    "inputs": (lambda p: rehashed(p, inputs={"suspect": {"hash": "x", "path": 3}}), "damaged"),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_broken_bundle(path, name):
    change, says = BROKEN[name]
    change(path)
    assert_bundle_refused(path, says)
