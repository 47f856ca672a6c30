import json

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from lit_backdoor.audit.calibration import LEAST, calibrate, read_reference


def rows(clean, poisoned, **more):
    """Reference models with one score, or several by name."""
    return [
        {"setup": "s", "net": "n", "attack": "badnets" if kind else None, "seed": i, "classes": 10, "poisoned": kind,
         "scores": score if isinstance(score, dict) else {"a": score}, **more}
        for kind, scores in ((False, clean), (True, poisoned)) for i, score in enumerate(scores)
    ]  # fmt: skip


CLEAN, POISONED = [0.1, 0.3, 0.5, 0.4, 0.9, 0.2], [2.0, 3.0, 2.5, 0.8, 4.0, 3.5]


def test_probability_is_that_of_the_regression_on_standardized_scores():
    probability, said = calibrate({"a": 1.5}, {}, 10, rows(CLEAN, POISONED))
    values = np.array(CLEAN + POISONED)
    scaled = ((values - values.mean()) / values.std())[:, None]
    model = LogisticRegression(class_weight="balanced").fit(scaled, [0] * 6 + [1] * 6)
    assert probability == pytest.approx(model.predict_proba([[(1.5 - values.mean()) / values.std()]])[0, 1])
    assert (said["models"], said["poisoned"], said["detectors"]) == (12, 6, ["a"])


def test_quality_is_of_models_that_were_left_out():
    said = calibrate({"a": 1.5}, {}, 10, rows(CLEAN, POISONED))[1]
    values, truth = np.array(CLEAN + POISONED), np.array([0] * 6 + [1] * 6)
    held_out = []
    for i in range(12):
        rest = np.delete(values, i)
        scaled = ((rest - rest.mean()) / rest.std())[:, None]
        model = LogisticRegression(class_weight="balanced").fit(scaled, np.delete(truth, i))
        held_out.append(model.predict_proba([[(values[i] - rest.mean()) / rest.std()]])[0, 1])
    held_out = np.array(held_out)
    assert said["brier"] == pytest.approx(((held_out - truth) ** 2).mean())
    assert said["log_loss"] == pytest.approx(-np.log(np.where(truth, held_out, 1 - held_out)).mean())
    assert said["auroc"] == pytest.approx((held_out[6:, None] > held_out[None, :6]).mean())
    assert said["base_log_loss"] == pytest.approx(np.log(2))


def test_probability_is_for_even_odds_whatever_the_share_of_poisoned_reference_models():
    probability, said = calibrate({"a": 0.4}, {}, 10, rows(CLEAN, CLEAN * 4))  # a score that tells nothing
    assert probability == pytest.approx(0.5, abs=0.02)
    assert said["log_loss"] >= said["base_log_loss"] == pytest.approx(np.log(2))  # left out, it is worse than one half


@pytest.mark.parametrize(
    ("clean", "poisoned"), [(CLEAN[: LEAST - 1], POISONED), (CLEAN, POISONED[: LEAST - 1]), ([], [])]
)
def test_too_few_reference_models_give_no_probability(clean, poisoned):
    probability, said = calibrate({"a": 1.5}, {}, 10, rows(clean, poisoned))
    assert probability is said["auroc"] is None
    assert "There is no probability" in said["warnings"][0]


def test_detector_that_most_models_lack_is_left_out():
    table = rows([{"a": c, "b": 1.0 if i < 2 else None} for i, c in enumerate(CLEAN)], [{"a": p} for p in POISONED])
    probability, said = calibrate({"a": 1.5, "b": 3.0}, {}, 10, table)
    assert (probability, said["detectors"]) == (calibrate({"a": 1.5}, {}, 10, table)[0], ["a"])
    assert said["warnings"] == ["The scores of b do not count: too few reference models have them."]


def test_detectors_that_name_the_same_class_count():
    def row(number, kind):
        tops = {"a": 1, "b": 1 if kind else 2}
        return {"setup": "s", "net": "n", "attack": "badnets" if kind else None, "seed": number, "classes": 10,
                "poisoned": kind, "scores": {"a": number % 3, "b": number % 2},
                "found": {name: {"top": top} for name, top in tops.items()}}  # fmt: skip

    table = [row(number, kind) for kind in (False, True) for number in range(6)]  # scores that tell nothing
    agreeing, apart, unknown = (calibrate({"a": 1, "b": 0}, {"a": 3, "b": top}, 10, table)[0] for top in (3, 4, None))
    assert agreeing > 0.8
    assert apart == unknown < 0.2


def test_model_unlike_the_reference_models_is_warned_of():
    said = calibrate({"a": 9.0}, {}, 43, rows(CLEAN, POISONED))[1]["warnings"]
    assert said == [
        "The score of a, 9.00, is outside the reference models' 0.10 to 4.00.",
        "The model has 43 classes, the reference models have 10 to 10.",
    ]


def test_shipped_reference_is_whole():
    shipped = read_reference()
    marks = [tuple(row[part] for part in ("setup", "net", "attack", "target", "seed")) for row in shipped]
    assert len(set(marks)) == len(marks)
    for row in shipped:
        assert row["poisoned"] is (row["attack"] is not None)
        assert all(score is None or np.isfinite(score) for score in row["scores"].values())
    json.dumps(shipped, allow_nan=False)
