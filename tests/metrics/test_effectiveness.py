import math

import pytest
import torch

from lit_backdoor.metrics import DefenseEffectivenessRating, dem, der

CASES = [  # before_asr, after_asr, before_acc, after_acc, DER, DEM by hand
    (1.0, 0.0, 0.9, 0.9, 1.0, 1.0),
    (0.9, 0.9, 0.8, 0.8, 0.5, 0.5),
    (1.0, 0.1, 0.9, 0.81, 0.905, 0.9),
    (0.8, 0.9, 0.8, 0.9, 0.5, 0.5),
    (0.5, 0.25, 0.8, 0.4, 0.425, 0.5),
]


@pytest.mark.parametrize(("before_asr", "after_asr", "before_acc", "after_acc", "rating", "measure"), CASES)
def test_values_by_hand(before_asr, after_asr, before_acc, after_acc, rating, measure):
    shares = (before_asr, after_asr, before_acc, after_acc)
    assert der(*shares).item() == pytest.approx(rating)
    assert dem(*shares).item() == pytest.approx(measure)
    assert der(*map(torch.tensor, shares)).item() == pytest.approx(rating)


@pytest.mark.parametrize("missing", range(4))
def test_a_missing_share_is_nan(missing):
    shares = [0.9, 0.1, 0.9, 0.8]
    shares[missing] = math.nan
    assert der(*shares).isnan()
    assert dem(*shares).isnan()


def test_dem_without_denominator_is_nan():
    assert dem(0.0, 0.0, 0.9, 0.9).isnan()
    assert dem(0.9, 0.0, 0.0, 0.0).isnan()


@pytest.mark.parametrize("value", [97.3, -0.1])
def test_percentages_are_refused(value):
    with pytest.raises(ValueError, match=r"`after_asr`.*Divide"):
        der(0.9, value, 0.9, 0.9)


def test_clean_rows_alone_are_no_defense_metric():
    metric = DefenseEffectivenessRating()
    target = torch.tensor([0, 1])
    metric.update(target, target, target, torch.zeros(2, dtype=torch.bool))
    assert metric.compute().isnan()
