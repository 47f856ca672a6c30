"""What is read from a chain's folder where a kill, a full disk or a file's rights got in the way."""

import shutil

import pytest

from lit_backdoor.chain import folders


@pytest.mark.parametrize("end", ["1,4,2e-", "1,4,\0\0"])
def test_log_whose_last_line_a_kill_cut_off_is_read_up_to_it(tmp_path, end):
    (tmp_path / "logs" / "version_0").mkdir(parents=True)
    (tmp_path / "logs" / "version_0" / "metrics.csv").write_text(f"epoch,step,train/loss\n0,2,0.5\n{end}")
    assert folders.read_history(tmp_path)[0] == {"epoch": 0, "train/loss": 0.5}


def test_copy_that_fills_the_disk_is_taken_away(tmp_path, monkeypatch):
    def full(source, part):
        part.mkdir()
        (part / "weights.safetensors").write_bytes(b"some")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copytree", full)
    with pytest.raises(OSError, match="No space"):
        folders.copy_whole(tmp_path, tmp_path / "cache")
    assert not list(tmp_path.iterdir())
