"""Folders of weights, and what stands beside them."""

import json

import pytest

from lit_backdoor.models.folders import find_weights, read_config


def write(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


@pytest.mark.parametrize(
    ("names", "taken"),
    [
        (("model.safetensors", "pytorch_model.bin", "optimizer.pt"), "model.safetensors"),
        (("pytorch_model.bin", "training_args.bin"), "pytorch_model.bin"),
        (("last.ckpt", "config.json"), "last.ckpt"),
    ],
)
def test_weights_of_a_folder_are_found(tmp_path, names, taken):
    assert find_weights(write(tmp_path, *names)) == tmp_path / taken


def test_several_files_are_a_question_not_a_guess(tmp_path):
    with pytest.raises(ValueError, match=r"got epoch1\.pth, epoch2\.pth\. Name the file instead of its folder"):
        find_weights(write(tmp_path, "epoch1.pth", "epoch2.pth", "log.txt"))


def test_bundles_below_a_folder_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="It holds bundles: clean, victim. Name one"):
        find_weights(write(tmp_path, "victim/bundle.json", "clean/bundle.json"))
    with pytest.raises(FileNotFoundError, match=r"such as model\.safetensors\.$"):
        find_weights(tmp_path / "victim")


def test_config_of_timm_is_read_from_the_folder_and_beside_its_file(tmp_path):
    details = {"input_size": [3, 160, 192], "mean": [0.1] * 3, "std": [0.2] * 3}
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "resnet18", "pretrained_cfg": details}))
    said = {"architecture": "resnet18", "mean": [0.1] * 3, "std": [0.2] * 3, "size": 192}
    assert read_config(tmp_path) == read_config(tmp_path / "model.safetensors") == said
    assert read_config(tmp_path / "other.pth") == {}


def test_arguments_of_timms_builder_are_read_as_far_as_the_weights_do_not_tell_them(tmp_path):
    args = {"in_chans": 1, "num_classes": 5, "global_pool": "max", "img_size": [96, 96], "drop_path_rate": 0.1}
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "x", "model_args": args}))
    assert read_config(tmp_path)["args"] == {"global_pool": "max", "img_size": 96}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ('{"model_args": 3}', "model_args in .* as a mapping, got 3"),
        ('{"model_args": {"depth": 1000000}}', "among global_pool, img_size, .* got depth=1000000. Name your own"),
        ('{"model_args": {"pretrained": true}}', "got pretrained=True"),
        ('{"model_args": {"img_size": 100000}}', "got img_size=100000"),
        ("{", "Expected JSON"),
        ("[1]", "Expected a mapping"),
        ('{"architecture": 5}', "architecture in .* as str, got 5"),
        ('{"pretrained_cfg": {"mean": "x"}}', "mean in .* as list, got 'x'"),
        ('{"pretrained_cfg": {"input_size": [3, 2, "x"]}}', "size in .* as int, got 'x'"),
        ('{"architectures": ["ViT"]}', "one of transformers"),
    ],
)
def test_config_of_another_form_is_refused(tmp_path, content, says):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(ValueError, match=says):
        read_config(tmp_path)


def test_config_without_details_says_nothing(tmp_path):
    assert read_config(tmp_path) == {}
    (tmp_path / "config.json").write_text('{"pretrained_cfg": [1]}')
    assert read_config(tmp_path) == {}
