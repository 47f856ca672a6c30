import gzip
import json

import pytest
from board_parts import row

from lit_backdoor.board import rows
from lit_backdoor.board.rows import Goal, Numbers, Reported, Row, read_rows, write_rows


def test_rows_are_read_as_they_were_written(tmp_path, grid):
    rows = [*grid, row(reported=Reported({"asr": 0.01}, "Table 2"), goal=Goal(0.1, 0.05), flags=("development",))]
    write_rows(rows, tmp_path / "rows.jsonl")
    assert read_rows(tmp_path / "rows.jsonl") == rows
    packed = tmp_path / "rows.jsonl.gz"
    packed.write_bytes(gzip.compress((tmp_path / "rows.jsonl").read_bytes()))
    assert read_rows(packed) == rows


def test_numbers_that_are_not_finite_are_null(tmp_path):
    record = row().record()
    text = json.dumps({**record, "der": float("nan"), "peak_mb": float("inf"), "before": {"asr": float("nan")}})
    (tmp_path / "rows.jsonl").write_text(text + "\n\n")
    [read] = read_rows(tmp_path / "rows.jsonl")
    assert (read.der, read.peak_mb, read.before.asr) == (None, None, None)
    write_rows([row(der=float("nan"))], tmp_path / "again.jsonl")
    assert "NaN" not in (tmp_path / "again.jsonl").read_text()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"schema": 2}, "newer lit_backdoor"),
        ({"seeds": 1}, "Did you mean 'seed'"),
        ({"seed": "1"}, "row.seed as int, got '1'"),
        ({"seed": True}, "row.seed as int"),
        ({"status": "ok"}, "row.status as one of done"),
        ({"attack": {}}, "'name' in row.attack"),
        ({"attack": []}, "row.attack as an object"),
        ({"before": {"acc": 2}}, r"acc as a share in \[0, 1\]"),
        ({"defense": {"name": "a", "access": "all"}}, "row.defense.access as one of"),
        ({"seconds": {"clean": "1"}}, "row.seconds.clean as float"),
        ({"flags": "development"}, "row.flags as tuple"),
    ],
)
def test_what_is_no_row_is_refused(tmp_path, change, said):
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps(row().record()) + "\n" + json.dumps({**row().record(), **change}) + "\n")
    with pytest.raises(ValueError, match=rf"rows.jsonl, line 2: .*{said}"):
        read_rows(file)


@pytest.mark.parametrize("line", ["{", "[]", "1", "[" * 100000])
def test_broken_lines_name_their_place(tmp_path, line):
    (tmp_path / "rows.jsonl").write_text(line)
    with pytest.raises(ValueError, match="line 1"):
        read_rows(tmp_path / "rows.jsonl")


@pytest.mark.parametrize("damage", [
    lambda packed: b"no archive",
    lambda packed: packed[:-9],
    lambda packed: packed[:40] + bytes(60),
], ids=["other", "cut", "altered"])  # fmt: skip
def test_packed_rows_that_are_damaged_are_refused_by_their_file(tmp_path, damage):
    file = tmp_path / "rows.jsonl.gz"
    file.write_bytes(damage(gzip.compress(json.dumps(row().record()).encode() * 40)))
    with pytest.raises(ValueError, match=r"rows.jsonl.gz is damaged or was cut off"):
        read_rows(file)


def test_a_line_that_unpacks_without_end_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(rows, "_LONGEST", 1000)
    file = tmp_path / "rows.jsonl.gz"
    file.write_bytes(gzip.compress(b" " * 5000))
    with pytest.raises(ValueError, match=r"lines of at most 1,000 bytes in .*rows.jsonl.gz"):
        read_rows(file)


@pytest.mark.parametrize("big", ["1e999", "-1e300"])
@pytest.mark.parametrize("key", ["peak_mb", "der"])
def test_numbers_beyond_all_others_are_null_or_refused(tmp_path, key, big):
    file, record = tmp_path / "rows.jsonl", row().record()
    file.write_text(json.dumps({**record, key: "BIG"}).replace('"BIG"', big))
    [read] = read_rows(file)
    assert getattr(read, key) is None
    file.write_text(json.dumps({**record, key: 10**400}))
    with pytest.raises(ValueError, match=f"line 1: Expected row.{key} as float, got 1000"):
        read_rows(file)


def test_a_goal_is_reached_missed_or_unknown():
    assert row().reached is None
    assert row(goal=Goal()).reached is None
    assert row(asr=0.1, goal=Goal(asr=0.1)).reached is True
    assert row(asr=0.2, goal=Goal(asr=0.1)).reached is False
    assert row(asr=0.1, acc=0.8, goal=Goal(0.1, 0.05)).reached is False
    assert row(after=Numbers(), goal=Goal(0.1, 0.05)).reached is None


def test_an_attack_from_all_to_all_is_measured_against_the_accuracy():
    low = Numbers(0.75, asr=0.65)
    assert not row(before=low).took
    record = row(before=low).record()
    assert Row.parse({**record, "attack": {"name": "badnets_a2a", "policy": "AllToAll"}}).took
