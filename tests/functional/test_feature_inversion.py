import numpy as np
import pytest
import torch

from lit_backdoor.functional.feature_inversion import (
    Bounds,
    Measures,
    excess,
    generator_loss,
    likeness,
    mask_loss,
    masked_spread,
    mixed,
    mixed_value,
)

FEATURES = torch.rand(6, 4, 2, 2, generator=torch.Generator().manual_seed(0))
OTHERS = torch.rand(6, 4, 2, 2, generator=torch.Generator().manual_seed(1))
MASK = torch.rand(4, 2, 2, generator=torch.Generator().manual_seed(2))
BOUNDS = Bounds(success=0.9, change=0.15, spread=1.0, mask=0.03)


def measures(**values):
    usual = {"success": 1.0, "likeness": 0.2, "change": 0.1, "spread": 0.5, "mask": 0.02}
    return Measures(**{name: torch.tensor(value) for name, value in {**usual, **values}.items()})


def test_features_outside_the_mask_are_the_others():
    h, other, m = (each.numpy() for each in (FEATURES, OTHERS, MASK))
    np.testing.assert_allclose(mixed(FEATURES, OTHERS, MASK), m * h + (1 - m) * other, rtol=1e-6)


def test_spread_and_likeness_are_numpys():
    h, m, center = FEATURES.double().numpy(), MASK.double().numpy(), OTHERS[0].double().numpy()
    assert float(masked_spread(FEATURES, MASK)) == pytest.approx((h * m).std(0, ddof=1).sum() / m.sum(), rel=1e-5)
    mean = h.mean(0)
    expected = (mean * center).sum() / np.linalg.norm(mean) / np.linalg.norm(center)
    assert float(likeness(FEATURES, OTHERS[0])) == pytest.approx(expected, rel=1e-5)


def test_bounds_that_hold_add_nothing_to_the_generators_loss():
    loss = generator_loss(torch.tensor(3.0), measures(), BOUNDS, measures(), 5.0)
    assert float(loss) == pytest.approx(5 * 0.2)
    assert float(generator_loss(torch.tensor(3.0), measures(likeness=-0.5), BOUNDS, measures(), 5.0)) == 0


@pytest.mark.parametrize(("broken", "expected"), [
    ({"change": 0.3}, 10 * (1 + (0.24 - 0.15) / 0.15) * 0.3),
    ({"spread": 1.5}, 10 * (1 + (1.2 - 1) / 1) * 1.5),
    ({"success": 0.6}, (1 + (0.9 - 0.45) / 0.9) * 3.0),
])  # fmt: skip
def test_broken_bound_is_weighted_by_its_excess_in_the_last_epoch(broken, expected):
    last = measures(change=0.24, spread=1.2, success=0.45)
    found = measures(likeness=0.0, **broken)
    assert float(generator_loss(torch.tensor(3.0), found, BOUNDS, last, 5.0)) == pytest.approx(expected, rel=1e-5)


def test_mask_is_penalized_only_above_its_bound():
    logits, target = torch.randn(6, 3, generator=torch.Generator().manual_seed(3)), torch.full((6,), 1)
    entropy = -np.log(np.exp(logits.double())[:, 1] / np.exp(logits.double()).sum(1)).mean()
    assert float(mask_loss(logits, target, MASK, 0.9)) == pytest.approx(float(entropy), rel=1e-5)
    assert float(mask_loss(logits, target, MASK, 0.1)) == pytest.approx(float(entropy + MASK.sum()), rel=1e-5)


def test_value_adds_the_excess_of_each_broken_bound():
    assert float(mixed_value(measures(), BOUNDS)) == pytest.approx(0.2 - 1)
    broken = measures(change=0.3, spread=2.0, mask=0.06)
    assert float(mixed_value(broken, BOUNDS)) == pytest.approx(0.2 - 1 + 1 + 1 + 1, rel=1e-5)
    assert excess(torch.tensor([0.1, 0.3]), 0.2).tolist() == pytest.approx([0.0, 0.5])
