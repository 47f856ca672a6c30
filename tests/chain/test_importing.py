"""``lit-backdoor import``: names, bundles, what is not lost."""

import json

import pytest
import tiny
import torch

from lit_backdoor.bundle import open_bundle, save_bundle
from lit_backdoor.chain.importing import read_names
from lit_backdoor.cli import main

OWN = """
import torch


class Net(torch.nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.conv, self.fc = torch.nn.Conv2d(3, 4, 3), torch.nn.Linear(4, num_classes)

    def forward(self, images):
        return self.fc(self.conv(images).mean((2, 3)))
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with weights and the module that makes their net, which only the current folder leads to."""
    weights = {"conv.weight": torch.rand(4, 3, 3, 3), "conv.bias": torch.rand(4), "fc.weight": torch.rand(2, 4),
               "fc.bias": torch.rand(2)}  # fmt: skip
    torch.save(weights, tmp_path / "w.pt")
    (tmp_path / "somebodys_net.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*words):
    return main(["import", *map(str, words)])


def test_function_of_the_current_folder_is_found(here):
    assert run("w.pt", "--arch", "somebodys_net.Net", "--out", "b") == 0
    assert open_bundle(here / "b").build(["somebodys_net"]).num_classes == 2


def test_bundle_keeps_its_names_and_its_attack(here):
    save_bundle(
        here / "b", kind="suspect", module=tiny.classifier(), attack=tiny.attack(), meta={"class_names": list("abcd")}
    )
    assert run("b", "--out", "again") == 0
    info = open_bundle(here / "again").info
    assert info["class_names"] == list("abcd")
    assert info["attack"] == open_bundle(here / "b").info["attack"]


def test_bundle_of_somebodys_net_needs_trust(here, capsys):
    assert run("w.pt", "--arch", "somebodys_net.Net", "--out", "b") == 0
    assert run("b", "--out", "again") == 2
    assert "--trust" in capsys.readouterr().err
    assert run("b", "--out", "again", "--trust", "somebodys_net") == 0


def test_bundle_of_a_stage_is_not_lost_but_one_of_an_import_is_replaced(here, capsys):
    words = ("w.pt", "--arch", "somebodys_net.Net", "--out", "b")
    assert run(*words) == run(*words) == 0
    save_bundle(here / "b", kind="suspect", module=tiny.classifier(), key="abc")
    assert run(*words) == 2
    assert "which would be lost. Remove it, or give another --out" in capsys.readouterr().err
    assert open_bundle(here / "b").info["key"] == "abc"


def test_empty_out_is_not_the_current_folder(here, capsys):
    assert run("w.pt", "--arch", "somebodys_net.Net", "--out", "") == 2
    assert "empty text" in capsys.readouterr().err


def test_names_are_lines_or_a_list(tmp_path):
    (tmp_path / "bom.txt").write_text("cat\n dog \n\nowl", encoding="utf-8-sig")
    (tmp_path / "list.json").write_text(json.dumps(["cat", "dog", "owl"]))
    for name in ("bom.txt", "list.json"):
        assert read_names(str(tmp_path / name)) == (3, ["cat", "dog", "owl"])
    assert read_names("7") == (7, [])


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("twice.txt", b"crane\nowl\ncrane", "got 'crane' twice. Tell them apart, such as 'crane 2'"),
        ("blank.txt", b"\n \n", "got none"),
        ("bytes.txt", b"\xff\xfe\x00", "Expected a text file with a name on each line"),
        ("map.json", b'{"cat": 0}', "Expected a list of names"),
        ("broken.json", b"[", "Expected JSON"),
    ],
)
def test_names_of_another_form_are_refused(tmp_path, name, content, says):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=says):
        read_names(str(tmp_path / name))
