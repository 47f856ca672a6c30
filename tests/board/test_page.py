import csv
import io
import json
import re
import subprocess
import sys
from html.parser import HTMLParser

import pytest
import yaml
from board_parts import row

from lit_backdoor.board import write_board
from lit_backdoor.board.exports import every_eval_ever, latex, model_index, table
from lit_backdoor.board.rows import Numbers, read_rows, write_rows
from lit_backdoor.cli import main
from lit_backdoor.disk import claim

VOID = {"meta", "br", "wbr", "input"}
HOSTILE = "<script>alert('x')</script>\"&|$#_"


class Page(HTMLParser):
    """Checks that elements are closed in order, and collects text, sections and what is loaded."""

    def __init__(self, text):
        super().__init__()
        self.open, self.sections, self.words, self.scripts, self.loaded, self.dots = [], [], [], 0, [], 0
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        if tag not in VOID:
            self.open.append(tag)
        if tag == "section":
            self.sections.append(attributes["id"])
        self.scripts += tag == "script"
        self.dots += tag == "circle" and "data-seed" in attributes
        self.loaded += [value for key, value in attributes.items() if key == "src"]
        self.loaded += [attributes["href"]] if tag == "link" else []

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("style", "script"):
            self.words += data.split()

    @property
    def text(self):
        return " ".join(self.words)


def page(rows, tmp_path):
    text = write_board(rows, tmp_path / "board").read_text(encoding="utf-8")
    return Page(text), text


def test_the_page_is_whole_and_needs_no_network(tmp_path, grid):
    parsed, text = page(grid, tmp_path)
    assert parsed.sections == [
        "verdict", "defenses", "asr", "acc", "tradeoff", "detectors", "costs", "cells", "runs", "about",
    ]  # fmt: skip
    assert parsed.scripts == 1
    assert not parsed.loaded
    assert not re.search(r"https?://|url\(|@import", text)
    for name in ("board.csv", "board.tex", "model-index.yaml", "every_eval_ever.jsonl", "rows.jsonl"):
        assert (tmp_path / "board" / name).stat().st_size


def test_equal_rows_give_equal_pages_and_a_board_may_be_replaced(tmp_path, grid):
    assert page(grid, tmp_path)[1] == page(grid, tmp_path)[1]


def test_cells_say_when_they_failed_or_were_not_run(tmp_path, grid):
    text = page(grid, tmp_path)[0].text
    assert "1 failed · 1 not run" in text
    assert re.search(r'<td class="absent"[^>]*><span>failed</span>', page(grid, tmp_path)[1])
    assert re.search(r'<td class="absent"[^>]*><span>not run</span>', page(grid, tmp_path)[1])


def test_every_seed_is_a_dot_and_the_count_is_below_the_limit(tmp_path):
    rows = [row(seed=seed, asr=asr, control=Numbers()) for seed, asr in enumerate((0.116, 0.98, 0.05))]
    text = page(rows, tmp_path)[1]
    cell = re.search(r'<td class="bad" data-label="badnets".*?</td>', text, re.DOTALL)[0]
    assert cell.count("<circle") == 3
    assert "<b>11.6</b><small>1/3</small>" in cell
    assert "5.0 to 98.0" in cell


def test_one_seed_has_no_range(tmp_path):
    parsed, text = page([row()], tmp_path)
    assert 'class="range"' not in text.split("<script>")[0].split("</style>")[1]
    assert "on 1 attack" not in parsed.text
    assert "1 of 1" in parsed.text


def test_an_attack_that_did_not_take_is_shown_as_such_and_counts_nowhere(tmp_path):
    rows = [row(seed=seed, before=Numbers(0.9, asr=0.3), asr=0.0) for seed in range(3)]
    text = page(rows, tmp_path)[0].text
    assert "did not take (30%)" in text
    assert "No defense was measured on an attack that took hold." in text


@pytest.mark.parametrize("status", ["failed", "missing", "blocked"])
def test_boards_without_a_finished_run(tmp_path, status):
    parsed, _ = page([row(status=status, before=Numbers(), after=Numbers(), control=Numbers())], tmp_path)
    assert {"failed": "failed", "missing": "not run", "blocked": "blocked"}[status] in parsed.text


def test_null_numbers_are_dashes(tmp_path):
    rows = [row(asr=None, after=Numbers(), before=Numbers(), control=Numbers(), seconds={}, peak_mb=None, der=None)]
    parsed, _ = page(rows, tmp_path)
    assert "None" not in parsed.text
    assert "nan" not in parsed.text


def test_thirty_defenses(tmp_path):
    rows = [row(f"attack_{a}", f"defense_{d}", seed) for a in range(6) for d in range(30) for seed in range(2)]
    parsed, _ = page(rows, tmp_path)
    assert "30 defenses · 6 attacks" in parsed.text
    assert parsed.dots > 6 * 30 * 2


def test_hostile_names_are_escaped(tmp_path):
    rows = [
        row(HOSTILE, HOSTILE, setup=HOSTILE, error=HOSTILE, command=HOSTILE, flags=(HOSTILE,), status=status, seed=seed)
        for seed, status in enumerate(("done", "failed"))
    ]
    parsed, _ = page(rows, tmp_path)
    assert parsed.scripts == 1
    assert "<script>alert('x')" in parsed.text
    assert yaml.safe_load(model_index(rows))["model-index"][0]["name"] == f"{HOSTILE}-{HOSTILE}"
    assert r"\$\#\_" in latex(rows)


def test_files_of_others_are_not_mixed_with(tmp_path, grid, capsys):
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "index.html").write_text("mine")
    with pytest.raises(ValueError, match="which holds 'index.html'"):
        write_board(grid, mine)
    assert (mine / "index.html").read_text() == "mine"
    claim(tmp_path / "grid")
    write_rows(grid[:1], tmp_path / "grid" / "rows.jsonl")
    with pytest.raises(ValueError, match="the folder of a grid"):
        write_board(grid, tmp_path / "grid")
    assert len(read_rows(tmp_path / "grid" / "rows.jsonl")) == 1
    with pytest.raises(ValueError, match="at least one row"):
        write_board([], tmp_path / "new")
    assert main(["board", str(tmp_path / "nowhere"), "--out", str(tmp_path / "new")]) == 2
    assert "found neither" in capsys.readouterr().err


def test_the_command_writes_a_board(tmp_path, grid, capsys):
    write_board(grid, tmp_path / "first")
    assert main(["board", str(tmp_path / "first"), "--out", str(tmp_path / "second")]) == 0
    assert capsys.readouterr().out.split() == ["board", str(tmp_path / "second" / "index.html")]
    assert (tmp_path / "second" / "index.html").read_text().count("<section") == 10


def test_a_board_needs_no_torch():
    script = "import sys, lit_backdoor.board; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_csv_has_the_columns_of_backdoorbench(grid):
    lines = list(csv.DictReader(io.StringIO(table(grid))))
    assert list(lines[0]) == [
        "dataset", "backbone", "attack_name", "defense_name", "ratio", "test_acc", "test_asr", "test_ra", "seed",
    ]  # fmt: skip
    assert len(lines) == sum(own.status == "done" for own in grid)
    assert float(lines[0]["test_asr"]) == grid[0].after.asr


def test_csv_holds_no_formulas():
    [line] = csv.DictReader(io.StringIO(table([row("=1+1", "@sum")])))
    assert (line["attack_name"], line["defense_name"]) == ("'=1+1", "'@sum")


def test_every_eval_ever_has_its_required_keys(grid):
    records = [json.loads(line) for line in every_eval_ever(grid).splitlines()]
    for record in records:
        assert set(record) == {
            "schema_version", "evaluation_id", "retrieved_timestamp", "source_metadata", "model_info", "eval_library",
            "evaluation_results",
        }  # fmt: skip
        for result in record["evaluation_results"]:
            config = result["metric_config"]
            assert config["min_score"] <= result["score_details"]["score"] <= config["max_score"]
            assert result["score_details"]["uncertainty"]["num_samples"] == 3


def test_model_index_lists_every_seed(grid):
    [model, *_] = yaml.safe_load(model_index(grid))["model-index"]
    [acc, asr] = model["results"][0]["metrics"]
    assert acc["name"].startswith("ACC (badnets")
    assert asr["value"] == ", ".join(f"{own.after.asr:.3f}" for own in grid[:3])
