"""Hostile and broken files of weights, through the import of a suspect."""

import pytest
import tiny
from cli_parts import written
from hostile_parts import assert_refused, load
from hostile_weights import FILES, bomb


@pytest.mark.parametrize("name", FILES)
def test_weights_from_elsewhere(tmp_path, name):
    make, says = FILES[name]
    (tmp_path / "work").mkdir()
    path = tmp_path / "work" / "w.pt"
    make(path)
    assert_refused(tmp_path, (load, str(path)), says)


def test_command_says_the_same(tmp_path):
    (tmp_path / "work").mkdir()
    path = tmp_path / "work" / "w.pt"
    bomb(path)
    model = {"class_path": "lit_backdoor.stages.ImportedSuspect",
             "init_args": {"classifier": tiny.NET, "weights": str(path)}}  # fmt: skip
    arguments = ["predict", "--config", written(tmp_path / "work", model), "--out", "imported"]
    assert_refused(tmp_path, arguments, "unpacks")
    assert not (tmp_path / "work" / "imported").exists()


@pytest.mark.parametrize("size", [0, 5, 2**40])
def test_safetensors_with_a_header_that_lies(tmp_path, size):
    (tmp_path / "work").mkdir()
    path = tmp_path / "work" / "w.safetensors"
    path.write_bytes(size.to_bytes(8, "little") + b'{"a":1}')
    assert_refused(tmp_path, (load, str(path)), "damaged")
