from pathlib import Path

import pytest
from board_parts import row

import lit_backdoor.board
from lit_backdoor.board.rows import Detection, Numbers, Reported, read_rows
from lit_backdoor.board.tables import fill, method_table

RESULTS = Path(lit_backdoor.board.__file__).parent / "results"


def test_a_table_shows_each_seed_the_median_and_the_count():
    rows = [row(seed=seed, asr=asr, command="lit-backdoor chain pgbd") for seed, asr in enumerate((0.02, 0.98, 0.06))]
    rows += [row("blend", seed=7, status="failed", before=Numbers(), after=Numbers()), row("sig", "other")]
    rows += [row("null", reported=Reported({"acc": 0.9, "asr": None}, "Table | 1"))]
    written = method_table(rows, "pgbd")
    assert "| badnets | 0, 1, 2 | 0.980, 0.980, 0.980 | 0.020, 0.980, 0.060 | 0.060 | 2 of 3 |" in written
    assert "| blend | 7 (failed) |" in written
    assert r"0.900 / – (Table \| 1)" in written  # noqa: RUF001
    assert "Setup `signs`; `lit-backdoor chain pgbd`; commit abc (dirty); 2 CPU cores; 10 s" in written
    assert "other" not in written


def test_seeds_that_were_tuned_on_have_a_table_of_their_own():
    written = method_table([row(seed=0, flags=("development",)), row(seed=11), row(seed=12)], "pgbd", "signs")
    first, second = written.split("\n\nSetup `signs`", 1)
    assert "| badnets | 11, 12 |" in first
    assert "| badnets | 0 |" in second
    assert "Setup `signs, development`" in second


def test_tables_are_written_between_their_marks():
    text = "head\n<!-- table:pgbd@signs -->\nold\n<!-- /table -->\ntail\n"
    filled = fill(text, [row(), row(setup="cifar")])
    assert filled.startswith("head\n<!-- table:pgbd@signs -->\n| attack")
    assert filled.endswith("<!-- /table -->\ntail\n")
    assert "old" not in filled
    assert "cifar" not in filled
    assert fill(filled, [row()]) == filled
    with pytest.raises(ValueError, match="in setup 'signs'"):
        fill(text, [row(setup="cifar")])


def test_the_headline_lists_the_best_first(grid):
    better = [row("badnets", "best", seed, 0.0, 0.92) for seed in range(3)]
    written = fill("<!-- headline:signs -->\nold\n<!-- /headline -->\n", [*grid, *better])
    lines = written.splitlines()
    assert lines[0] == "<!-- headline:signs -->"
    assert lines[3].startswith("| `best` | root data | 1.0 (on 1 attack) | 3 of 3 | 0.0 |")
    assert lines[-1] == "<!-- /headline -->"
    assert "old" not in written
    with pytest.raises(ValueError, match="the setup 'none'"):
        fill("<!-- headline:none -->\n<!-- /headline -->", grid)


@pytest.mark.parametrize(
    ("setup", "count"),
    [("cifar10_small", 226), ("signs_mini", 107), ("faces", 15), ("tinyimagenet_small", 2), ("signs", 60)],
)
def test_the_committed_rows_are_whole(setup, count):
    rows = read_rows(RESULTS / f"{setup}.jsonl")
    assert len(rows) == len({(own.attack.name, own.defense.name, own.seed) for own in rows}) == count
    assert all(own.setup == setup and own.code.commit for own in rows)
    assert all(
        "development" in own.flags or own.seed in (*range(11, 16), *range(21, 26), *range(31, 36)) for own in rows
    )


def test_several_defenses_share_a_table_under_their_names():
    rows = [row("badnets", "pgbd@given"), row("badnets", "pgbd"), row("blend", "other")]
    written = fill("<!-- table:pgbd,pgbd@given -->\n<!-- /table -->", rows)
    lines = [line for line in written.splitlines() if line.startswith("| `")]
    assert [line.split(" | ")[0] for line in lines] == ["| `pgbd`", "| `pgbd@given`"]
    with pytest.raises(ValueError, match="defense 'tac'"):
        fill("<!-- table:pgbd,tac -->\n<!-- /table -->", rows)


def test_numbers_of_stages_are_columns():
    rows = [row(seed=seed, metrics={"detect": {"f1": value}}) for seed, value in enumerate((0.5, 0.25))]
    written = fill("<!-- numbers:pgbd detect.f1 -->\n<!-- /numbers -->", rows)
    assert "| attack | seeds | detect.f1 |" in written
    assert "| badnets | 0, 1 | 0.500, 0.250 |" in written
    with pytest.raises(ValueError, match=r"detect\.recall"):
        fill("<!-- numbers:pgbd detect.recall -->\n<!-- /numbers -->", rows)


def test_detectors_are_counted_over_targets_and_seeds():
    def detected(attack, found, distance):
        metrics = {"detect": {"target_found": found, "target_top": 1.0, "feature_distance": distance}}
        return row(attack, "nc", metrics=metrics, detection=Detection(score=3.0, flagged=True, top=0))

    rows = [detected("badnets@target0", 1.0, 2.0), detected("badnets@target2", 0.0, 4.0), row("badnets", "nc")]
    written = fill("<!-- detection:nc -->\n<!-- /detection -->", rows)
    assert "| `nc` | badnets | 2 | 2 of 2 | 1 of 2 | 2 of 2 | 3 |" in written


def test_a_headline_may_name_its_defenses_and_drops_empty_columns(grid):
    written = fill("<!-- headline:signs pgbd -->\n<!-- /headline -->", [*grid, row("badnets", "best")])
    assert "best" not in written
    assert "mean rank" not in written  # there is nothing to rank one among
    assert "| `pgbd` |" in written
