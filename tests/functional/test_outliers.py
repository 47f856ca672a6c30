import numpy as np
import pytest
import torch
from scipy import stats

from lit_backdoor.functional.outliers import mad_index, smallest_p_value

NORMS = torch.tensor([4.1, 3.9, 1.2, 4.4, 3.7, 4.0, 4.6, 3.8, 4.2, 4.3])


def test_mad_index_is_the_median_absolute_deviation_of_scipy():
    expected = (np.median(NORMS.double()) - NORMS.double().numpy()) / stats.median_abs_deviation(
        NORMS.double(), scale=1 / 1.4826
    )
    torch.testing.assert_close(mad_index(NORMS), torch.from_numpy(expected))


def test_mad_index_has_one_outlier_and_none_on_the_large_side():
    assert (mad_index(NORMS) > 2).nonzero().flatten().tolist() == [2]
    assert not (mad_index(torch.cat([NORMS[3:], torch.tensor([90.0])])) > 2).any()


def test_mad_index_of_equal_numbers_and_of_numbers_that_are_not_there():
    assert mad_index(torch.tensor([1.0, 1, 1, 0])).tolist() == [0, 0, 0, torch.inf]
    assert mad_index(torch.tensor([3.0, 2, 1, torch.inf])).tolist()[3] == -torch.inf


def test_p_value_is_right_under_chance():
    draws = torch.randn(4000, 10, generator=torch.Generator().manual_seed(0)).mul(0.2).exp()
    p = np.array([smallest_p_value(row) for row in draws])
    assert 0.035 < (p < 0.05).mean() < 0.065


def test_p_value_of_an_outlier_against_the_formula():
    smallest, *rest = np.sort(np.log(NORMS.double().numpy()))
    t = (smallest - np.mean(rest)) / (np.std(rest, ddof=1) * np.sqrt(1 + 1 / 9))
    assert smallest_p_value(NORMS) == pytest.approx(1 - (1 - stats.t.cdf(t, 8)) ** 10)
    assert smallest_p_value(NORMS) < 1e-3
    assert smallest_p_value(NORMS + 100 * (NORMS < 2)) > 0.05


def test_p_value_of_zeros_and_of_numbers_that_are_no_sizes():
    assert smallest_p_value(NORMS * (NORMS > 2)) < 1e-6
    assert smallest_p_value(torch.zeros(5)) == 1
    assert smallest_p_value(NORMS * 7) == pytest.approx(smallest_p_value(NORMS), rel=1e-4)
    with pytest.raises(ValueError, match="sizes of 0 or more"):
        smallest_p_value(NORMS - 3)


def test_too_few_classes_are_refused():
    for function in (mad_index, smallest_p_value):
        with pytest.raises(ValueError, match="at least three"):
            function(torch.tensor([1.0, 2.0]))
