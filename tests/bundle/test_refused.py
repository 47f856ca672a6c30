"""Bundles that are refused: missing, damaged, altered, hostile."""

import hashlib
import json

import pytest
from safetensors.torch import load_file, save_file

from lit_backdoor import bundle as bundles
from lit_backdoor.bundle import FORMAT, KINDS, open_bundle, save_bundle


def altered(path, **changes):
    """Change bundle.json as an attacker does who can hash."""
    info = json.loads((path / "bundle.json").read_text())
    info |= changes
    info["weights"] = hashlib.sha256((path / "weights.safetensors").read_bytes()).hexdigest()
    info["hash"] = bundles._hash(info)
    (path / "bundle.json").write_text(json.dumps(info))
    return path


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
