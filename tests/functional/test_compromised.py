import numpy as np
import torch

from lit_backdoor.functional.compromised import excess, natural_break


def test_excess_is_what_numpy_makes_of_it():
    peaks = torch.randn(30, 4, generator=torch.Generator().manual_seed(0))
    strong, weak = torch.arange(30) < 5, torch.arange(30) >= 12
    found, rows = excess(peaks, strong, weak), peaks.numpy()
    for channel in range(4):
        base = rows[12:, channel]
        assert np.isclose(float(found[channel]), rows[:5, channel].max() - base.mean() - 3 * base.std(), atol=1e-5)
    assert (excess(peaks, strong & weak, weak) == -torch.inf).all()


def test_break_has_the_least_variance_of_all_cuts():
    for seed in range(5):
        values = torch.rand(25, generator=torch.Generator().manual_seed(seed)) ** 3
        upper, ordered = natural_break(values), values.sort().values.double()
        spread = [
            float(((cut := (ordered[:k], ordered[k:]))[0] - cut[0].mean()).square().sum() + (cut[1] - cut[1].mean()).square().sum())
            for k in range(1, 25)
        ]  # fmt: skip
        best = 1 + int(np.argmin(spread))
        assert int(upper.sum()) == 25 - best
        assert values[upper].min() > values[~upper].max()


def test_equal_numbers_have_no_upper_group():
    assert not natural_break(torch.ones(5)).any()
    assert not natural_break(torch.ones(1)).any()
    assert natural_break(torch.tensor([0.0, 1.0])).tolist() == [False, True]
