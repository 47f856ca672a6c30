import math
from dataclasses import replace

import numpy as np
import pytest
from board_parts import row
from scipy.stats import rankdata

from lit_backdoor.board.cells import ACC_DROP, ASR, setups
from lit_backdoor.board.ranks import detector_scores, ranks
from lit_backdoor.board.rows import Defense, Detection, Goal, Numbers


def cell(*rows):
    [setup] = setups(rows)
    return setup.cell(setup.attacks[0], setup.defenses[0])


def test_statistics_are_over_finished_runs_of_attacks_that_took():
    rows = [row(seed=seed, asr=asr) for seed, asr in enumerate((0.02, 0.98, 0.06))]
    rows += [row(seed=3, status="failed"), row(seed=4, asr=0.0, before=Numbers(0.9, asr=0.4))]
    own = cell(*rows)
    assert own.spread(ASR).values == (0.02, 0.98, 0.06)
    assert own.spread(ASR).median == 0.06
    assert own.spread(ASR).ends == (0.02, 0.98)
    assert own.spread(ASR).mean == pytest.approx(np.mean([0.02, 0.98, 0.06]))
    assert own.spread(ASR).deviation == pytest.approx(np.std([0.02, 0.98, 0.06], ddof=1))
    assert own.below(ASR) == 2
    assert [left.seed for left in own.untaken] == [4]
    assert own.count("failed") == 1


def test_one_seed_has_no_deviation_and_an_empty_cell_no_median():
    assert cell(row()).spread(ASR).deviation is None
    assert cell(row(asr=None)).spread(ASR).median is None


def test_a_goal_of_the_row_replaces_the_limit():
    assert cell(row(asr=0.05, goal=Goal(asr=0.02))).below(ASR) == 0
    assert cell(row(acc=0.8, goal=Goal(acc_drop=0.2))).below(ACC_DROP) == 1


def test_a_lost_class_and_an_equal_control_are_named():
    lost = Numbers(0.9, 0.4, 0.02, 0.8)
    assert cell(row(after=lost)).emptied == pytest.approx(0.5)
    assert cell(row(control=Numbers(0.92, asr=0.04))).as_control
    assert not cell(row()).as_control


def test_cells_of_other_settings_are_told_apart():
    rows = [row(defense=name, seed=0) for name in ("pgbd", "nc")]
    changed = Defense("pgbd", params={"stages.clean.model.init_args.weight": "3"})
    [setup] = setups([*rows, replace(rows[0], defense=changed)])
    assert setup.defenses == ["pgbd", "nc", "pgbd weight=3"]


def test_rows_that_were_tuned_on_are_told_apart_where_others_are():
    tuned, tested = row(seed=0, flags=("development",)), row(seed=11)
    assert [(own.name, own.plain_name, own.seeds) for own in setups([tuned, tested])] == [
        ("signs", "signs", [11]), ("signs, development", "signs", [0]),
    ]  # fmt: skip
    assert [own.name for own in setups([tuned, row("blend", seed=1, flags=("development",))])] == ["signs"]


def test_what_a_defense_is_given_is_taken_from_rows_that_know():
    [setup] = setups([replace(row(), status="missing", defense=Defense("pgbd")), row(seed=1)])
    assert setup.about("pgbd").access == "root"


def test_ranks_agree_with_scipy_where_no_cell_is_missing():
    draw = np.random.default_rng(1)
    asr = draw.random((4, 5))
    rows = [row(f"a{j}", f"d{i}", asr=float(asr[i, j])) for i in range(4) for j in range(5)]
    [setup] = setups(rows)
    expected = rankdata(asr, axis=0).mean(1)
    found = ranks(setup)
    assert [found[f"d{i}"].mean for i in range(4)] == pytest.approx(expected.tolist())
    assert all(own.ends[0] <= own.mean <= own.ends[1] for own in found.values())


def test_ranks_of_incomplete_tables():
    rows = [row("a", "x", asr=0.1), row("a", "y", asr=0.5), row("a", "z", asr=0.9), row("b", "y", asr=0.1)]
    rows += [row("b", "z", asr=0.9), row("c", "w", status="missing", after=Numbers(), der=None)]
    [setup] = setups(rows)
    found = ranks(setup)
    assert {name: own.mean for name, own in found.items()} == {"x": 1.0, "y": 1.5, "z": 3.0}
    assert found["x"].ends is None
    assert found["z"].attacks == 2


def test_detectors_are_scored_over_clean_and_poisoned_models():
    given = [(1, 0.9, 3.0), (1, 0.6, 1.0), (0, 0.2, 2.0), (0, 0.1, 0.5)]
    rows = [
        row("badnets" if truth else "null", seed=seed, detection=Detection(score, probability, probability > 0.5))
        for seed, (truth, probability, score) in enumerate(given)
    ]
    [setup] = setups(rows)
    found = detector_scores(setup, "pgbd")
    sure = [p if truth else 1 - p for truth, p, _ in given]
    assert found.log_loss == pytest.approx(-sum(map(math.log, sure)) / 4)
    assert found.brier == pytest.approx(sum((1 - p) ** 2 for p in sure) / 4)
    assert found.auroc == pytest.approx(3 / 4)
    assert (found.poisoned, found.clean, found.flagged, found.alarms) == (2, 2, 1.0, 0.0)


def test_a_detector_without_probabilities_counts_by_its_decisions_and_may_lack_clean_models():
    rows = [row(seed=0, detection=Detection(flagged=True)), row("null", seed=1, detection=Detection(flagged=True))]
    [setup] = setups(rows)
    assert detector_scores(setup, "pgbd").log_loss == pytest.approx(-(math.log(0.99) + math.log(0.01)) / 2)
    [alone] = setups(rows[:1])
    assert detector_scores(alone, "pgbd").log_loss is None
    assert detector_scores(setups([row()])[0], "pgbd") is None
