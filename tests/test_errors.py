import pytest

from lit_backdoor.errors import check_rate


@pytest.mark.parametrize("rate", [-1e-9, float("nan"), float("inf"), float("-inf")])
def test_learning_rate_is_finite_and_not_negative(rate):
    assert check_rate("lr", 0.0) == 0
    with pytest.raises(ValueError, match="Expected lr to be finite and 0 or more, got"):
        check_rate("lr", rate)
