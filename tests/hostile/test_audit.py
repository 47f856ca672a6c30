"""Hostile and broken files as the model of an audit."""

import pytest
import tiny
from audit_parts import image_folder
from hostile_parts import assert_refused
from hostile_weights import FILES


@pytest.mark.parametrize("name", FILES)
def test_model_from_elsewhere(name, tmp_path):
    work = tmp_path / "work"
    work.mkdir()
    FILES[name][0](work / "w.pt")
    images = image_folder(work / "images")
    # an architecture, so that a file that can be read is refused for what it holds
    options = ["--arch", "timm:resnet18", "--classes", "4", "--size", str(tiny.SIZE), "--out", "out"]
    assert_refused(tmp_path, ["audit", str(work / "w.pt"), "--data", images, *options])
    assert not (work / "out").exists()
