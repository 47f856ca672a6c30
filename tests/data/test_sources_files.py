import io

import pytest
import torch
from PIL import Image

from lit_backdoor.data.sources import files


def encoded(image, kind="PNG", **options):
    data = io.BytesIO()
    image.save(data, kind, **options)
    return data.getvalue()


def test_images_of_different_sizes_need_a_size():
    data = [encoded(Image.new("L", (3, 3))), encoded(Image.new("L", (4, 3)))]
    with pytest.raises(ValueError, match=r"row 1: the image is 3x4.*Give a `size`"):
        files.decode_all(2, lambda row: (data[row], f"row {row}"))
    assert files.decode_all(2, lambda row: (data[row], f"row {row}"), (3, 3)).shape == (2, 3, 3, 3)


def test_decoded_pixels_are_kept_and_found_again(tmp_path, monkeypatch):
    monkeypatch.setenv("LIT_BACKDOOR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(files, "CACHE_FROM", 2)
    made = torch.arange(24, dtype=torch.uint8).reshape(2, 3, 2, 2)
    calls = []

    def make():
        calls.append(1)
        return made

    for _ in range(2):
        assert torch.equal(files.cached_pixels("key", 2, make), made)
    assert len(calls) == 1
    files.cached_pixels("other", 2, make)
    assert len(calls) == 2


def test_a_damaged_cache_is_made_anew(tmp_path, monkeypatch):
    monkeypatch.setenv("LIT_BACKDOOR_CACHE", str(tmp_path))
    monkeypatch.setattr(files, "CACHE_FROM", 2)
    made = torch.zeros(2, 3, 2, 2, dtype=torch.uint8)
    files.cached_pixels("key", 2, lambda: made)
    (kept,) = (tmp_path / "pixels").iterdir()
    for content in (b"", kept.read_bytes()[:-5], b"nonsense" * 30):
        kept.write_bytes(content)
        assert torch.equal(files.cached_pixels("key", 2, lambda: made), made)


def test_a_cache_that_cannot_be_written_is_done_without(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LIT_BACKDOOR_CACHE", str(tmp_path / "file"))
    monkeypatch.setattr(files, "CACHE_FROM", 2)
    made = torch.zeros(2, 3, 2, 2, dtype=torch.uint8)
    assert files.cached_pixels("key", 2, lambda: made) is made


def test_small_sets_leave_no_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LIT_BACKDOOR_CACHE", str(tmp_path))
    files.cached_pixels("key", 2, lambda: torch.zeros(2, 3, 2, 2, dtype=torch.uint8))
    assert not list(tmp_path.iterdir())


def test_relative_paths_are_found_below_the_data_folder(tmp_path, monkeypatch):
    (tmp_path / "some.file").write_text("")
    monkeypatch.setenv("LIT_BACKDOOR_DATA", str(tmp_path))
    assert files.find("some.file", "It") == tmp_path / "some.file"


@pytest.mark.parametrize("data", [None, "/nowhere/data"])
def test_missing_files_say_where_they_were_looked_for(data, monkeypatch):
    monkeypatch.delenv("LIT_BACKDOOR_DATA", raising=False)
    if data:
        monkeypatch.setenv("LIT_BACKDOOR_DATA", data)
    with pytest.raises(FileNotFoundError, match="LIT_BACKDOOR_DATA") as caught:
        files.find("missing.file", "It")
    assert f"{data or ''}{'/' if data else ''}missing.file" in str(caught.value)
