import pytest
import torch

from lit_backdoor.metrics import InputDetectionScores, SelectionScores, input_detection_scores, selection_scores
from lit_backdoor.metrics.detection import auroc

YES, NO = torch.ones(3, dtype=torch.bool), torch.zeros(3, dtype=torch.bool)


@pytest.mark.parametrize(
    ("selected", "poisoned", "missing"),
    [(NO, YES, {"precision"}), (YES, NO, {"recall"}), (NO, NO, {"precision", "recall", "f1"})],
)
def test_each_share_without_denominator_is_nan(selected, poisoned, missing):
    found = selection_scores(selected, poisoned)
    assert {name for name, value in found.items() if value.isnan()} == missing


def test_auroc_needs_both_sides_and_numbers():
    scores = torch.tensor([0.1, 0.2, 0.3])
    assert auroc(scores, YES).isnan()
    assert auroc(scores, NO).isnan()
    truth = torch.tensor([True, False, True])
    assert auroc(scores, truth) == 0.5
    assert auroc(torch.tensor([0.1, float("nan"), 0.3]), truth).isnan()


def test_auroc_tells_large_scores_apart():
    scores = torch.tensor([1000.0, 1001.0, 1002.0, 1003.0])
    assert auroc(scores, torch.tensor([False, False, True, True])) == 1
    assert auroc(-scores, torch.tensor([False, False, True, True])) == 0


def test_a_detector_that_flags_everything_has_the_precision_of_chance():
    triggered = torch.tensor([False, True]).repeat(5)
    found = input_detection_scores(torch.zeros(10), torch.ones(10, dtype=torch.bool), triggered)
    assert {name: value.item() for name, value in found.items()} == pytest.approx(
        {"precision": 0.5, "recall": 1.0, "f1": 2 / 3, "auroc": 0.5}
    )


@pytest.mark.parametrize("metric", [SelectionScores(), InputDetectionScores()])
def test_flags_must_be_bool(metric):
    inputs = (torch.zeros(3), torch.zeros(3), YES)[-2 if isinstance(metric, SelectionScores) else 0 :]
    with pytest.raises(ValueError, match="`flagged` to be bool"):
        metric.update(*inputs)
