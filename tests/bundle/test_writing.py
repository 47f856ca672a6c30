"""Writing of bundles, whole or not at all."""

import os
import shutil
import stat

import pytest
import torch
from torch import nn

from lit_backdoor import bundle as bundles
from lit_backdoor.bundle import open_bundle, save_bundle
from lit_backdoor.models import UNet


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


def test_group_may_read_what_the_umask_allows(tmp_path):
    old = os.umask(0o027)
    try:
        save_bundle(tmp_path / "g", kind="targets", tensors={"x": torch.ones(1)})
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "g").stat().st_mode) == 0o750
    assert {stat.S_IMODE(file.stat().st_mode) for file in (tmp_path / "g").iterdir()} == {0o640}


def test_net_that_was_not_recorded(tmp_path):
    with pytest.raises(ValueError, match="Expected a net that remembers how it was made"):
        save_bundle(tmp_path / "x", kind="suspect", module=nn.Linear(2, 2))
    assert not list(tmp_path.iterdir())
