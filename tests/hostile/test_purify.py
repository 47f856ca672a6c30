"""Hostile and broken files as the model that is to be purified."""

import pytest
import tiny
from hostile_parts import assert_refused
from hostile_weights import FILES
from purify_parts import write_images


@pytest.mark.parametrize("name", FILES)
def test_model_from_elsewhere(name, tmp_path):
    work = tmp_path / "work"
    work.mkdir()
    FILES[name][0](work / "w.pt")
    images = write_images(work / "images")
    # an architecture, so that a file that can be read is refused for what it holds
    options = ["--arch", "timm:resnet18", "--classes", "4", "--size", str(tiny.SIZE), "--with", "fine_tune"]
    assert_refused(tmp_path, ["purify", str(work / "w.pt"), "--data", str(images), *options, "--out", "new.pt"])
    assert not (work / "new.pt").exists()
    assert not (work / "new.pt.purify").exists()
