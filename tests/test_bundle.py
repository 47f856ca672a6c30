import hashlib
import json
import os
import shutil
import stat

import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from lit_backdoor import bundle as bundles
from lit_backdoor.bundle import FORMAT, KINDS, open_bundle, save_bundle
from lit_backdoor.models import TimmClassifier, UNet
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


@pytest.fixture
def path(tmp_path):
    save_bundle(tmp_path / "b", kind="suspect", module=tiny.classifier(), attack=tiny.attack(), numbers={"n": 1})
    return tmp_path / "b"


def altered(path, **changes):
    """Change bundle.json as an attacker does who can hash."""
    info = json.loads((path / "bundle.json").read_text())
    info |= changes
    info["weights"] = hashlib.sha256((path / "weights.safetensors").read_bytes()).hexdigest()
    info["hash"] = bundles._hash(info)
    (path / "bundle.json").write_text(json.dumps(info))
    return path


# What goes in comes out.


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


def test_group_may_read_what_the_umask_allows(tmp_path):
    old = os.umask(0o027)
    try:
        save_bundle(tmp_path / "g", kind="targets", tensors={"x": torch.ones(1)})
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "g").stat().st_mode) == 0o750
    assert {stat.S_IMODE(file.stat().st_mode) for file in (tmp_path / "g").iterdir()} == {0o640}


# What is refused.


def test_missing_bundle(tmp_path):
    (tmp_path / "empty").mkdir()
    for name in ("none", "empty"):
        with pytest.raises(FileNotFoundError, match="Expected a bundle"):
            open_bundle(tmp_path / name)


def test_other_kind(path):
    with pytest.raises(ValueError, match="Expected a bundle of kind 'selection', got 'suspect'"):
        open_bundle(path, "selection")
    with pytest.raises(ValueError, match="Did you mean 'suspect'"):
        save_bundle(path, kind="suspects")


def test_other_format(path):
    altered(path, format=FORMAT + 1)
    with pytest.raises(ValueError, match=f"Expected bundle format {FORMAT}, got {FORMAT + 1}"):
        open_bundle(path)


@pytest.mark.parametrize("name", ["bundle.json", "weights.safetensors"])
@pytest.mark.parametrize("keep", [0, 0.5, -1])
def test_truncated_file(path, name, keep):
    content = (path / name).read_bytes()
    (path / name).write_bytes(content[: int(keep * len(content)) if keep >= 0 else -2])
    with pytest.raises(ValueError, match="is damaged"):
        open_bundle(path)


def test_altered_weights(path):
    weights = load_file(path / "weights.safetensors")
    weights["model.net.fc.bias"] += 1
    save_file(weights, path / "weights.safetensors")
    with pytest.raises(ValueError, match=r"damaged: weights.safetensors is truncated or was altered"):
        open_bundle(path)


def test_altered_json(path):
    info = json.loads((path / "bundle.json").read_text())
    info["attack"]["init_args"]["target"] = 3
    (path / "bundle.json").write_text(json.dumps(info))
    with pytest.raises(ValueError, match="does not match its hash"):
        open_bundle(path)


def test_missing_weights(path):
    (path / "weights.safetensors").unlink()
    with pytest.raises(ValueError, match=r"weights.safetensors is missing"):
        open_bundle(path)


@pytest.mark.parametrize("text", ["[]", "3", "null", '{"format": 1, "kind": "suspect", "hash": "x"}', "\x00\xff"])
def test_json_of_another_shape(path, text):
    (path / "bundle.json").write_text(text)
    with pytest.raises(ValueError, match="is damaged"):
        open_bundle(path)


def test_kind_that_nobody_knows(path):
    altered(path, kind="spell")
    with pytest.raises(ValueError, match="kind"):
        open_bundle(path)
    assert "spell" not in KINDS


@pytest.mark.parametrize(
    "model",
    [
        {"class_path": "os.system", "init_args": {"command": "true"}},
        {"class_path": "torch.load", "init_args": {"f": "x"}},
        {"class_path": "lit_backdoor.triggers.base.AllToAll", "init_args": {}},
        {"class_path": "lit_backdoor.models.unet.UNet", "init_args": [1]},
        {"class_path": "lit_backdoor.models.unet.UNet", "init_args": {"base": "x"}},
        {"class_path": 3, "init_args": {}},
        "a text",
        [1, 2],
        {"some": "thing"},
    ],
)
def test_hostile_model(path, model):
    with pytest.raises(ValueError, match=r"[A-Z]"):
        open_bundle(altered(path, model=model)).build()


@pytest.mark.parametrize("attack", ["x", {"class_path": "lit_backdoor.models.unet.UNet", "init_args": {}}])
def test_hostile_attack(path, attack):
    with pytest.raises(ValueError, match=r"[A-Z]"):
        open_bundle(altered(path, attack=attack)).attack()


@pytest.mark.parametrize("changes", [{"inputs": None}, {"inputs": {"suspect": "x"}}, {"tied": [1]}, {"numbers": 3}])
def test_parts_of_another_type(path, changes):
    info = json.loads((path / "bundle.json").read_text()) | changes
    (path / "bundle.json").write_text(json.dumps(info))
    with pytest.raises(ValueError, match=r"altered|damaged"):
        open_bundle(path)


@pytest.mark.parametrize("name", ["model.net.fc.bias", "model.nothing"])
def test_tied_names_that_the_net_does_not_have(path, name):
    weights = load_file(path / "weights.safetensors")
    weights["model.other"] = weights.pop("model.net.fc.weight")
    save_file(weights, path / "weights.safetensors")
    with pytest.raises(ValueError, match="do not fit the net"):
        open_bundle(altered(path, tied={"model.net.fc.weight": name})).build()


def test_weights_of_another_net(path):
    other = {"class_path": "lit_backdoor.models.unet.UNet", "init_args": {}}
    with pytest.raises(ValueError, match="do not fit the net"):
        open_bundle(altered(path, model=other)).build()


def test_net_that_was_not_recorded(tmp_path):
    with pytest.raises(ValueError, match="Expected a net that remembers how it was made"):
        save_bundle(tmp_path / "x", kind="suspect", module=nn.Linear(2, 2))
    assert not list(tmp_path.iterdir())


# What happens while writing.


def test_newer_bundle_replaces_the_older_and_leaves_nothing(path):
    save_bundle(path, kind="generator", module=UNet(base=4, downs=2))
    assert open_bundle(path).kind == "generator"
    assert [p.name for p in path.parent.iterdir()] == ["b"]


@pytest.mark.parametrize("place", ["save_file", "json"])
def test_failed_write_leaves_the_older_bundle(path, place, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    before = open_bundle(path).hash
    if place == "save_file":
        monkeypatch.setattr(bundles, "save_file", full)
    else:
        monkeypatch.setattr(bundles.Path, "write_text", full)
    with pytest.raises(OSError, match="the disk is full"):
        save_bundle(path, kind="generator", module=UNet(base=4, downs=2))
    monkeypatch.undo()
    assert open_bundle(path).hash == before
    assert [p.name for p in path.parent.iterdir()] == ["b"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_interrupted_write_leaves_nothing(path, error, monkeypatch):
    def stop(*args, **kwargs):
        raise error

    before = open_bundle(path).hash
    monkeypatch.setattr(bundles, "save_file", stop)
    with pytest.raises(error):
        save_bundle(path, kind="generator", module=UNet(base=4, downs=2))
    assert open_bundle(path).hash == before
    assert [p.name for p in path.parent.iterdir()] == ["b"]


def test_numbers_that_are_no_json_leave_nothing(tmp_path):
    with pytest.raises((TypeError, ValueError)):
        save_bundle(tmp_path / "x", kind="targets", tensors={"x": torch.ones(1)}, numbers={"x": torch.ones(2)})
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs a small file system of its own")
def test_full_disk(tmp_path):
    small = tmp_path / "small"
    small.mkdir()
    if os.system(f"mount -t tmpfs -o size=64k tmpfs {small} 2>/dev/null"):
        pytest.skip("cannot mount")
    try:
        with pytest.raises(OSError, match="the disk is full"):
            save_bundle(small / "b", kind="generator", module=UNet())
        assert not list(small.iterdir())
    finally:
        os.system(f"umount {small}")
        shutil.rmtree(small)


@pytest.mark.parametrize("change", [
    {"model": {"class_path": "lit_backdoor.models.TimmClassifier", "init_args": {"name": ["a"], "num_classes": 4}}},
    {"model": {"class_path": "lit_backdoor.models.TimmClassifier",  # 2 petabytes
               "init_args": {"name": "resnet18", "num_classes": 10**12}}},
    {"tied": {"a": ["b"]}},
])  # fmt: skip
def test_values_of_other_types_and_sizes_are_refused(path, change):
    altered(path, **change)
    with pytest.raises(ValueError, match="damaged|could not be built"):
        open_bundle(path).build()


def test_deep_nesting_and_unreadable_weights_are_refused(path):
    (path / "weights.safetensors").write_bytes(b"")
    altered(path)
    with pytest.raises(ValueError, match="cannot be read"):
        open_bundle(path).build()
    (path / "bundle.json").write_text("[" * 100_000)
    with pytest.raises(ValueError, match="damaged"):
        open_bundle(path)


def test_weights_of_another_width_are_told_in_a_line(path):
    described = json.loads((path / "bundle.json").read_text())["model"]
    described["init_args"]["channels"] += 2
    with pytest.raises(ValueError, match="do not fit") as caught:
        open_bundle(altered(path, model=described)).build()
    assert "\n" not in str(caught.value)
