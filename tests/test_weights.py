import argparse
import os
import pickle
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file, save_model
from torch import nn

from lit_backdoor.weights import find_state, is_safetensors, layers_of, load_weights, read_content, read_weights


def net():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))


class Evil:
    def __reduce__(self):
        return os.system, ("touch executed",)


@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: {"state_dict": s, "epoch": 3}, lambda s: {"model": s}])
@pytest.mark.parametrize("prefix", ["", "module.", "module.model.", "net.", "net._orig_mod."])
def test_common_wrappings_of_a_state_dict_fit(tmp_path, wrap, prefix):
    source, target = net(), net()
    torch.save(wrap({prefix + k: v for k, v in source.state_dict().items()}), tmp_path / "w.pt")
    load_weights(target, tmp_path / "w.pt")
    assert all(
        torch.equal(a, b) for a, b in zip(source.state_dict().values(), target.state_dict().values(), strict=True)
    )


def test_layers_that_were_compiled_alone_have_their_own_names(tmp_path):
    source, target = net(), net()
    state = {key.replace("0.", "0._orig_mod."): value for key, value in source.state_dict().items()}
    torch.save(state, tmp_path / "w.pt")
    load_weights(target, tmp_path / "w.pt")
    assert torch.equal(target[0].weight, source[0].weight)


def test_weights_that_the_net_shares_may_stand_once_in_the_file(tmp_path):
    nets = [nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3)) for _ in range(2)]
    for each in nets:
        each[1].weight = each[0].weight
    save_model(nets[0], str(tmp_path / "w.safetensors"))
    assert len(read_weights(tmp_path / "w.safetensors")) == 3
    load_weights(nets[1], tmp_path / "w.safetensors")
    assert torch.equal(nets[1][1].weight, nets[0][0].weight)
    with pytest.raises(ValueError, match=r"1 missing: [01]\.weight"):
        load_weights(nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3)), tmp_path / "w.safetensors")


def test_several_state_dicts_of_one_name_are_a_question(tmp_path):
    torch.save({"last": {"state_dict": net().state_dict()}, "best": {"state_dict": net().state_dict()}}, tmp_path / "w")
    with pytest.raises(ValueError, match=r"found several: 'last\.state_dict', 'best\.state_dict'. Name one by part"):
        read_weights(tmp_path / "w")
    assert len(read_weights(tmp_path / "w", part="best.state_dict")) == 7


def test_old_files_need_no_counts_of_batches(tmp_path):
    source, target = net(), net()
    torch.save({k: v for k, v in source.state_dict().items() if not k.endswith("tracked")}, tmp_path / "w.pt")
    load_weights(target, tmp_path / "w.pt")
    assert torch.equal(target[0].weight, source[0].weight)


def test_whole_numbers_are_no_weights(tmp_path):
    torch.save({k: (100 * v).to(torch.int8) for k, v in net().state_dict().items()}, tmp_path / "w.pt")
    with pytest.raises(ValueError, match=r"6 of another type: 0\.bias torch\.int8, "):
        load_weights(net(), tmp_path / "w.pt")


@pytest.mark.parametrize("place", range(0, 1200, 60))
def test_damage_of_an_old_file_is_said(tmp_path, place):
    torch.save({"model": net().state_dict()}, tmp_path / "w.pt", _use_new_zipfile_serialization=False)
    content = (tmp_path / "w.pt").read_bytes()
    (tmp_path / "w.pt").write_bytes(content[:place])
    with pytest.raises(ValueError, match=r"w\.pt (is damaged or of a kind that is not read|was refused)"):
        load_weights(net(), tmp_path / "w.pt")


def test_numbers_as_names_do_not_fit(tmp_path):
    torch.save({0: torch.ones(2)}, tmp_path / "w.pt")
    with pytest.raises(ValueError, match="1 unexpected: 0"):
        load_weights(net(), tmp_path / "w.pt")


def test_bare_weights_fit_a_net_that_wraps_the_bare_one(tmp_path):
    source = net()
    target = nn.Module()
    target.net = net()
    save_file(source.state_dict(), tmp_path / "w.safetensors")
    load_weights(target, tmp_path / "w.safetensors")
    assert torch.equal(target.net[0].weight, source[0].weight)


def test_a_file_that_would_execute_code_is_refused_and_the_global_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": Evil()}, tmp_path / "evil.pt")
    with pytest.raises(ValueError, match=r"names '(posix|nt|os)\.system'"):
        read_weights(tmp_path / "evil.pt")
    (tmp_path / "raw.pkl").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(ValueError, match="refused|damaged"):
        read_weights(tmp_path / "raw.pkl")
    assert not (tmp_path / "executed").exists()


def test_torchscript_is_refused(tmp_path):
    torch.jit.save(torch.jit.trace(net().eval(), torch.rand(1, 3, 8, 8)), tmp_path / "scripted.pt")
    with pytest.raises(ValueError, match="refused|not read"):
        read_weights(tmp_path / "scripted.pt")


@pytest.mark.parametrize("content", [b"", b"not weights"])
@pytest.mark.parametrize("name", ["w.pt", "w.safetensors"])
def test_a_damaged_file_is_named(tmp_path, content, name):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=name):
        read_weights(tmp_path / name)


def test_what_does_not_fit_is_listed_and_nothing_is_loaded(tmp_path):
    state = net().state_dict()
    state["9.weight"] = torch.zeros(1)
    state["0.weight"] = torch.zeros(8, 3, 3, 3)
    del state["1.bias"]
    torch.save(state, tmp_path / "w.pt")
    target = net()
    before = target[1].weight.clone()
    with pytest.raises(ValueError, match=r"1 missing: 1\.bias; 1 unexpected: 9\.weight; 1 of another shape: 0\.weight"):
        load_weights(target, tmp_path / "w.pt")
    assert torch.equal(target[1].weight, before)


def test_weights_of_wanets_release_beside_loose_tensors(tmp_path):
    source, target = net(), net()
    torch.save(
        {"netC": source.state_dict(), "optimizerC": {"state": {}}, "identity_grid": torch.zeros(2)}, tmp_path / "w"
    )
    load_weights(target, tmp_path / "w")
    assert torch.equal(target[0].weight, source[0].weight)


def test_numbers_of_numpy_are_read_beside_the_weights(tmp_path):
    content = {"model": net().state_dict(), "acc": np.float64(0.9), "rows": np.arange(3), "flags": np.zeros(2, bool)}
    torch.save(content, tmp_path / "attack_result.pt")
    assert read_weights(tmp_path / "attack_result.pt").keys() == net().state_dict().keys()


def test_weights_of_the_loss_are_left_out(tmp_path):
    source, target = net(), net()
    state = {f"model.{key}": value for key, value in source.state_dict().items()}
    torch.save({"state_dict": {**state, "criterion.weight": torch.ones(4)}}, tmp_path / "w.ckpt")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_weights(target, tmp_path / "w.ckpt")
    assert torch.equal(target[0].weight, source[0].weight)


def test_weights_left_out_are_named(tmp_path):
    state = {f"1.{key}": value for key, value in net().state_dict().items()}
    torch.save({**state, "0.mean": torch.zeros(3)}, tmp_path / "w.pt")
    with pytest.warns(UserWarning, match=r"'1\.' are taken; 1 others are left out, such as '0\.mean'"):
        load_weights(net(), tmp_path / "w.pt")


@pytest.mark.parametrize("form", ["nested", "prefixed"])
def test_averaged_weights_are_a_choice(tmp_path, form):
    raw, averaged, target = net(), net(), net()
    if form == "nested":
        torch.save({"model": raw.state_dict(), "model_ema": averaged.state_dict()}, tmp_path / "w.pt")
    else:
        both = {"model": raw, "model_ema": averaged}
        torch.save({f"{p}.{k}": v for p, each in both.items() for k, v in each.state_dict().items()}, tmp_path / "w.pt")
    with pytest.warns(UserWarning, match="model_ema"):
        load_weights(target, tmp_path / "w.pt")
    assert torch.equal(target[0].weight, raw[0].weight)
    load_weights(target, tmp_path / "w.pt", part="model_ema")
    assert torch.equal(target[0].weight, averaged[0].weight)
    with pytest.raises(ValueError, match="Expected weights under 'ema'"):
        read_weights(tmp_path / "w.pt", part="ema")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda v: v * torch.nan, "not finite: 0.bias, 0.weight"),
        (lambda v: v * 1j, "of another type: 0.bias torch.complex64"),
        (lambda v: v.to_sparse(), "of another type: 0.bias torch.float32"),
    ],
)
def test_values_that_no_net_takes(tmp_path, change, says):
    torch.save({k: change(v) if k.startswith("0.") else v for k, v in net().state_dict().items()}, tmp_path / "w.pt")
    with pytest.raises(ValueError, match=says):
        load_weights(net(), tmp_path / "w.pt")


def test_options_and_paths_beside_the_weights_are_read(tmp_path):
    source = net()
    options = argparse.Namespace(lr=0.1, out=Path("runs") / "x", names=["a"])
    torch.save({"state_dict": source.state_dict(), "args": options}, tmp_path / "w.pt")
    assert torch.equal(read_weights(tmp_path / "w.pt")["0.weight"], source[0].weight)
    assert read_content(tmp_path / "w.pt")["args"] == options


@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: {"state_dict": s, "epoch": 3}])
def test_layers_without_weights_are_read_if_the_file_lists_them(tmp_path, wrap):
    source = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    torch.save(wrap(source.state_dict()), tmp_path / "w.pt")
    content = read_content(tmp_path / "w.pt")
    assert layers_of(content, find_state(content, "w.pt", None)) == {"", "0", "1"}
    torch.save(wrap(dict(source.state_dict())), tmp_path / "w.pt")
    content = read_content(tmp_path / "w.pt")
    assert layers_of(content, find_state(content, "w.pt", None)) == set()


def test_safetensors_are_known_by_their_content(tmp_path):
    save_file(net().state_dict(), tmp_path / "w.bin")
    assert is_safetensors(tmp_path / "w.bin")
    assert read_weights(tmp_path / "w.bin").keys() == net().state_dict().keys()
    torch.save(net().state_dict(), tmp_path / "w.pt")
    assert not is_safetensors(tmp_path / "w.pt")


def test_eight_bit_floats_are_weights_unless_they_are_not_finite(tmp_path):
    source = {
        key: value.to(torch.float8_e4m3fn) if "weight" in key else value for key, value in net().state_dict().items()
    }
    target = net()
    save_file(source, tmp_path / "w.safetensors")
    load_weights(target, tmp_path / "w.safetensors")
    assert torch.equal(target[0].weight, source["0.weight"].float())
    source["0.weight"].view(torch.uint8).fill_(0x7F)
    save_file(source, tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match=r"1 not finite: 0\.weight"):
        load_weights(target, tmp_path / "w.safetensors")


@pytest.mark.parametrize("kind", ["net", "program"])
def test_refused_file_says_how_to_save_the_weights(tmp_path, kind):
    if kind == "net":
        torch.save(net(), tmp_path / "w.pt")
    else:
        torch.jit.save(torch.jit.trace(net().eval(), torch.rand(1, 3, 8, 8)), tmp_path / "w.pt")
    with pytest.raises(ValueError, match=r"save the weights alone: torch\.save\(model\.state_dict\(\), FILE\)"):
        read_weights(tmp_path / "w.pt")
