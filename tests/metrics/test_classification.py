import pytest
import torch

from lit_backdoor.metrics import Accuracy, AttackSuccessRate, RobustAccuracy


def test_counts_are_integers():
    metric = Accuracy()
    metric.update(torch.tensor([1, 2]), torch.tensor([1, 1]))
    assert metric.correct.dtype == metric.total.dtype == torch.int64
    assert (metric.correct.item(), metric.total.item()) == (1, 2)


def test_asr_and_ra_over_the_same_rows():
    truth = torch.tensor([0, 0, 1, 2, 3, 4])
    preds = torch.tensor([0, 0, 0, 2, 0, 1])
    asr, ra = AttackSuccessRate(), RobustAccuracy()
    asr.update(preds, torch.zeros_like(truth), mask=truth != 0)
    ra.update(preds, truth, mask=truth != 0)
    assert asr.compute().item() == pytest.approx(2 / 4)
    assert ra.compute().item() == pytest.approx(1 / 4)


def test_all_to_all_counts_every_row():
    truth = torch.arange(5)
    label = (truth + 1) % 5
    asr = AttackSuccessRate()
    asr.update(label, label)
    assert asr.compute() == 1


@pytest.mark.parametrize(
    ("preds", "target", "match"),
    [
        (torch.zeros(3), torch.zeros(3, dtype=torch.long), "`preds`"),
        (torch.zeros(3, 2, 2), torch.zeros(3, dtype=torch.long), "`preds`"),
        (torch.zeros(3, 2), torch.zeros(2, dtype=torch.long), "`target`"),
        (torch.zeros(3, 2), torch.zeros(3), "`target`"),
    ],
)
def test_wrong_shapes_are_named(preds, target, match):
    with pytest.raises(ValueError, match=match):
        Accuracy().update(preds, target)


def test_higher_is_better_for_the_defender():
    assert Accuracy.higher_is_better
    assert RobustAccuracy.higher_is_better
    assert not AttackSuccessRate.higher_is_better
