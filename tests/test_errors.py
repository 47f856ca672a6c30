import pytest

from lit_backdoor.errors import check_rate, check_seed


@pytest.mark.parametrize("rate", [-1e-9, float("nan"), float("inf"), float("-inf")])
def test_learning_rate_is_finite_and_not_negative(rate):
    assert check_rate("lr", 0.0) == 0
    with pytest.raises(ValueError, match="Expected lr to be finite and 0 or more, got"):
        check_rate("lr", rate)


def test_seed_is_one_that_every_generator_takes():
    assert check_seed(0) == 0
    for seed in (-1, 2**32):
        with pytest.raises(ValueError, match=f"Expected a seed from 0 to 4294967295, got {seed}"):
            check_seed(seed)
