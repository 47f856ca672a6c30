"""What is ours on a disk, what is exchanged, and names that become paths."""

import os
import subprocess
import sys

import pytest

from lit_backdoor import disk
from lit_backdoor.disk import check_bundle_folder, check_claim, check_name, claim, clean_name, part_of, place, tidy


def bundle(folder, text="old"):
    folder.mkdir()
    (folder / "bundle.json").write_text(text)
    (folder / "weights.safetensors").write_text(text)
    return folder


def abandoned(path, end="part"):
    """A temporary name whose writer is gone."""
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    return path.with_name(part_of(path, end).name.replace(f"-{os.getpid()}-", f"-{gone.pid}-"))


@pytest.mark.parametrize(
    "text", ["../../evil", "/etc/passwd", "a/b", "..", ".", "", "a\0b", "a\nb", "x" * 5000, "ü" * 999]
)
def test_any_text_becomes_the_name_of_one_folder_inside(tmp_path, text):
    folder = tmp_path / clean_name(text)
    folder.mkdir()
    assert folder.resolve().parent == tmp_path.resolve()


def test_long_names_that_differ_only_at_their_ends_stay_apart():
    assert clean_name("x" * 500 + "1") != clean_name("x" * 500 + "2")


@pytest.mark.parametrize("name", ["..", "a/b", "", ".runs", "a b", 1, "x" * 101])
def test_names_that_are_no_plain_ones_are_refused(name):
    with pytest.raises(ValueError, match="letters, digits"):
        check_name("names of stages", name)


def test_claim_takes_new_and_empty_folders_and_its_own(tmp_path):
    (tmp_path / "empty").mkdir()
    for name in ("new/deep", "empty", "empty"):
        claim(tmp_path / name)
    (tmp_path / "empty" / "results.json").touch()
    claim(tmp_path / "empty")


def test_claim_refuses_what_is_not_ours_and_names_it(tmp_path):
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(ValueError, match=r"holds 'thesis\.tex'\. Give another --out"):
        claim(tmp_path)
    with pytest.raises(ValueError, match=r"got the file .*thesis\.tex"):
        claim(tmp_path / "thesis.tex")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize("check", [check_claim, check_bundle_folder])
@pytest.mark.parametrize(("name", "said"), [
    ("thesis.tex/out", "is no folder"),
    ("thesis.tex/deep/er", "is no folder"),
    ("nowhere", "a link"),
    ("nowhere/out", "is no folder"),
    pytest.param("locked/out", "may not be written", marks=pytest.mark.skipif(not os.getuid(), reason="root may")),
])  # fmt: skip
def test_folders_that_cannot_be_made_are_refused_before_anything_runs(tmp_path, name, said, check):
    (tmp_path / "thesis.tex").write_text("mine")
    (tmp_path / "nowhere").symlink_to(tmp_path / "none")
    (tmp_path / "locked").mkdir(mode=0o500)
    with pytest.raises(ValueError, match=f"{said}.* [Gg]ive another"):
        check(tmp_path / name)


def test_bundle_s_place_may_hold_a_bundle_or_nothing(tmp_path):
    (tmp_path / "empty").mkdir()
    for folder in (tmp_path / "none", tmp_path / "empty", bundle(tmp_path / "b")):
        check_bundle_folder(folder)


@pytest.mark.parametrize("name", ["thesis.tex", "weights.safetensors", "history.json", ".hidden"])
def test_bundle_s_place_may_hold_no_file_of_somebody_else(tmp_path, name):
    (tmp_path / name).write_text("mine")
    with pytest.raises(ValueError, match=f"which holds '{name}'"):
        check_bundle_folder(tmp_path)


@pytest.mark.parametrize("made", ["file", "folder", "link in it", "link"])
def test_bundle_with_something_beside_it_is_not_replaced(tmp_path, made):
    folder = bundle(tmp_path / "b")
    if made == "file":
        (folder / "notes.txt").touch()
    elif made == "folder":
        (folder / "notes").mkdir()
    elif made == "link in it":
        (folder / "history.json").symlink_to(tmp_path)
    else:
        (tmp_path / "link").symlink_to(folder)
        folder = tmp_path / "link"
    with pytest.raises(ValueError, match="Give another --out"):
        check_bundle_folder(folder)


@pytest.mark.parametrize("can", [True, False])
def test_newer_folder_takes_the_place_of_the_older(tmp_path, can, monkeypatch):
    if not can:
        monkeypatch.setattr(disk, "_exchange", lambda one, two: False)
    target, part = bundle(tmp_path / "b"), bundle(part_of(tmp_path / "b"), "new")
    place(part, target)
    assert (target / "bundle.json").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_what_came_into_the_older_folder_meanwhile_is_kept(tmp_path):
    target, part = bundle(tmp_path / "b"), bundle(part_of(tmp_path / "b"), "new")
    (target / "notes.txt").write_text("mine")
    place(part, target)
    assert (part / "notes.txt").read_text() == "mine"


@pytest.mark.skipif(sys.platform != "linux", reason="needs renameat2")
def test_system_exchanges_two_folders_in_one_step(tmp_path):
    one, two = bundle(tmp_path / "one", "1"), bundle(tmp_path / "two", "2")
    assert disk._exchange(one, two)
    assert (one / "bundle.json").read_text() == "2"
    assert not disk._exchange(one, tmp_path / "none")


def test_leftovers_of_a_killed_writer_go(tmp_path):
    target = bundle(tmp_path / "b")
    for end in ("part", "old"):
        bundle(abandoned(target, end), "half")
    abandoned(tmp_path / "b").write_text("a file's part")
    tidy(target)
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_older_bundle_is_taken_back_where_a_kill_came_between_two_renames(tmp_path):
    bundle(abandoned(tmp_path / "b", "old"))
    tidy(tmp_path / "b")
    assert (tmp_path / "b" / "bundle.json").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_tidy_leaves_what_is_not_a_dead_writer_s(tmp_path):
    target = tmp_path / "b"
    kept = {bundle(part_of(target)), bundle(tmp_path / ".b.mine.part"), bundle(abandoned(tmp_path / "c"))}
    (bundle(abandoned(target)) / "notes.txt").touch()
    kept |= set(tmp_path.iterdir())
    tidy(target)
    assert set(tmp_path.iterdir()) == kept


def test_writer_on_another_machine_is_dead_after_a_day(tmp_path):
    other = bundle(tmp_path / ".b.elsewhere-1-0123abcd.part")
    tidy(tmp_path / "b")
    assert other.exists()
    os.utime(other, (0, 0))
    tidy(tmp_path / "b")
    assert not other.exists()
