"""Weights come back in the file that they came in: names, nesting, types, metadata and all else."""

import copy
import json
import warnings
from collections import OrderedDict

import numpy as np
import pytest
import timm
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from lit_backdoor.models import load_classifier, save_like
from lit_backdoor.weights import read_content


class Own(nn.Module):
    """A foreign class; its two heads share a weight."""

    def __init__(self, num_classes=3):
        super().__init__()
        self.trunk = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
        self.fc = nn.Linear(4, num_classes)
        self.second = nn.Linear(4, num_classes)
        self.second.weight = self.fc.weight

    def forward(self, images):
        return self.fc(self.trunk(images).mean((2, 3)))


ARCH = f"{__name__}.Own"


def plain(net):
    return net.state_dict()


def nested(net):
    return {"epoch": 7, "state_dict": {f"module.{key}": value for key, value in net.state_dict().items()},
            "acc": np.float64(0.5), "optimizer": {"state": {0: torch.ones(2)}}, "names": ["a", "b"]}  # fmt: skip


def half(net):
    return {key: value.half() if value.is_floating_point() else value for key, value in net.state_dict().items()}


def bfloat(net):
    return {key: value.bfloat16() if value.is_floating_point() else value for key, value in net.state_dict().items()}


def typed(content):
    """The form of a file: names, types and shapes, and values that are no tensors."""
    if isinstance(content, dict):
        return {key: typed(value) for key, value in content.items()}
    return (content.dtype, content.shape, content.stride()) if isinstance(content, torch.Tensor) else content


def loaded(path, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return load_classifier(path, ARCH, size=16, **options)


def changed(classifier):
    with torch.no_grad():
        for value in classifier.state_dict().values():
            value.add_(1) if value.is_floating_point() else value.add_(5)
    return classifier


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("form", [plain, nested, half, bfloat])
def test_torch_file_comes_back(tmp_path, form, legacy):
    net = Own()
    torch.save(form(net), tmp_path / "w.pt", _use_new_zipfile_serialization=not legacy)
    before = (tmp_path / "w.pt").read_bytes()
    classifier = changed(loaded(tmp_path / "w.pt"))
    assert save_like(classifier, tmp_path / "w.pt", tmp_path / "new.pt") == []
    assert (tmp_path / "w.pt").read_bytes() == before
    old, new = read_content(tmp_path / "w.pt"), read_content(tmp_path / "new.pt")
    assert typed(old) == typed(new)
    assert (tmp_path / "new.pt").read_bytes()[:2] == before[:2]  # an archive, or the format before it
    state = {key.removeprefix("module."): value for key, value in new.get("state_dict", new).items()}
    mended = Own()
    mended.load_state_dict(state, strict=True)
    for key, value in classifier.net.state_dict().items():
        assert torch.equal(state[key], value.to(state[key].dtype))
    shared = [state[key].data_ptr() for key in ("fc.weight", "second.weight")]
    assert len(set(shared)) == (1 if form in (plain, nested) else 2)  # as in the file


def test_state_dict_keeps_what_torch_writes_beside_it(tmp_path):
    torch.save(Own().state_dict(), tmp_path / "w.pt")
    save_like(loaded(tmp_path / "w.pt"), tmp_path / "w.pt", tmp_path / "new.pt")
    new = torch.load(tmp_path / "new.pt", weights_only=True)
    assert isinstance(new, OrderedDict)
    assert new._metadata == Own().state_dict()._metadata


def test_safetensors_file_keeps_types_and_metadata(tmp_path):
    state = {key: value.clone() for key, value in half(Own()).items()}
    save_file(state, tmp_path / "w.safetensors", {"format": "pt", "author": "me"})
    before = (tmp_path / "w.safetensors").read_bytes()
    classifier = changed(loaded(tmp_path / "w.safetensors"))
    save_like(classifier, tmp_path / "w.safetensors", tmp_path / "new.safetensors")
    assert (tmp_path / "w.safetensors").read_bytes() == before
    with safe_open(tmp_path / "new.safetensors", "pt") as opened:
        assert opened.metadata() == {"format": "pt", "author": "me"}
    new = load_file(tmp_path / "new.safetensors")
    assert typed(new) == typed(state)
    assert torch.equal(new["trunk.0.weight"], classifier.net.trunk[0].weight.half())


def test_folder_comes_back_with_what_describes_it(tmp_path):
    net = timm.create_model("test_resnet", num_classes=3)
    old = tmp_path / "old"
    old.mkdir()
    save_file(net.state_dict(), old / "model.safetensors")
    torch.save(net.state_dict(), old / "backup.pt")
    (old / "config.json").write_text(json.dumps({"architecture": "test_resnet"}))
    with pytest.warns(UserWarning, match="Guessed"):
        classifier = changed(load_classifier(old))
    save_like(classifier, old, tmp_path / "new")
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["config.json", "model.safetensors"]
    net.load_state_dict(load_file(tmp_path / "new" / "model.safetensors"), strict=True)
    assert torch.equal(next(net.parameters()), next(classifier.net.parameters()))


def test_other_weights_in_the_file_are_named(tmp_path):
    net = Own()
    averaged = {key: value.clone() for key, value in net.state_dict().items()}
    content = {"state_dict": net.state_dict() | {"criterion.weight": torch.ones(3)}, "state_dict_ema": averaged}
    torch.save(content, tmp_path / "w.pt")
    left = save_like(changed(loaded(tmp_path / "w.pt")), tmp_path / "w.pt", tmp_path / "new.pt")
    assert left == ["state_dict_ema"]  # a loss's weights are no copy
    assert torch.equal(read_content(tmp_path / "new.pt")["state_dict_ema"]["fc.weight"], averaged["fc.weight"])
    with pytest.raises(FileExistsError, match="Expected nothing at"):
        save_like(loaded(tmp_path / "w.pt"), tmp_path / "w.pt", tmp_path / "new.pt")


def test_single_copies_in_the_same_state_dict_are_named(tmp_path):
    state = Own().state_dict()
    averaged = {f"module_ema.{key}": value.clone() for key, value in state.items() if key.startswith("fc")}
    torch.save({f"module.{key}": value for key, value in state.items()} | averaged, tmp_path / "w.pt")
    left = save_like(loaded(tmp_path / "w.pt"), tmp_path / "w.pt", tmp_path / "new.pt")
    assert left == ["module_ema.fc.weight", "module_ema.fc.bias"]


def test_values_that_the_file_cannot_hold_are_refused(tmp_path):
    torch.save(half(Own()), tmp_path / "w.pt")
    classifier = loaded(tmp_path / "w.pt")
    with torch.no_grad():
        classifier.net.fc.bias.fill_(1e6)
    with pytest.raises(ValueError, match="'net.fc.bias' has values that torch.float16"):
        save_like(classifier, tmp_path / "w.pt", tmp_path / "new.pt")
    assert not (tmp_path / "new.pt").exists()


def test_weights_that_share_memory_in_the_file_only_must_stay_equal(tmp_path):
    torch.save(plain(Own()), tmp_path / "w.pt")
    classifier = loaded(tmp_path / "w.pt")
    classifier.net.second.weight = copy.deepcopy(classifier.net.fc.weight)
    with torch.no_grad():
        classifier.net.second.weight.add_(1)
    with pytest.raises(ValueError, match="share its memory"):
        save_like(classifier, tmp_path / "w.pt", tmp_path / "new.pt")
