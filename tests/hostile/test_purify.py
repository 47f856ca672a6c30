"""Hostile and broken files of weights, through the door of purify."""

import pytest
from hostile.test_weights import FILES
from hostile_parts import check
from purify_parts import write_images

HARMFUL = ("os.system", "os.system, old format", "bare pickle", "rmtree", "whole net", "compressed archive", "NaN",
           "storage of terabytes", "endless", "cut", "expanded to terabytes", "several", "no weights")  # fmt: skip


@pytest.mark.parametrize("name", HARMFUL)
def test_nothing_is_executed_or_written(tmp_path, name):
    work = tmp_path / "work"
    work.mkdir()
    FILES[name][0](work / "w.pt")
    write_images(work / "images")
    check(tmp_path, ["purify", work / "w.pt", "--data", work / "images", "--with", "fine_tune", "--out", work / "new"])
    assert not (work / "new").exists()
    assert not (work / "new.purify").exists()
