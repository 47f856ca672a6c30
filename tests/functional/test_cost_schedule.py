import pytest
import torch

from lit_backdoor.functional.cost_schedule import CostRule, move_cost, start_cost


def scalar_loop(rates, rule):
    """The rule for one class, written out."""
    cost, worked, failed, costs = rule.start, 0, 0, []
    for rate in rates:
        if rate >= rule.threshold:
            worked, failed = worked + 1, 0
        else:
            worked, failed = 0, failed + 1
        if worked == rule.patience:
            cost, worked = cost * rule.up, 0
        if failed == rule.patience:
            cost, failed = cost / rule.down, 0
        costs.append(cost)
    return costs


@pytest.mark.parametrize("rule", [CostRule(), CostRule(0.02, 1.5, 1.5**1.5, 3, 0.9), CostRule(patience=1, threshold=1)])
def test_every_class_follows_the_scalar_loop(rule):
    draws = torch.rand(60, 5, generator=torch.Generator().manual_seed(0))
    # classes that mostly work, mostly fail, and those between
    rates = torch.where(draws < torch.tensor([0.97, 0.05, 0.5, 0.8, 0.3]), 1.0, 0.5)
    state, costs = start_cost(5, rule), []
    for rate in rates:
        state = move_cost(state, rate, rule)
        costs.append(state.cost)
    expected = torch.tensor([scalar_loop(column.tolist(), rule) for column in rates.T]).T
    torch.testing.assert_close(torch.stack(costs), expected)
    assert expected.max() > rule.start > expected.min()


def test_a_class_without_images_stays_as_it_is():
    rule = CostRule(patience=2)
    before = move_cost(start_cost(2, rule), torch.tensor([1.0, 0.0]), rule)
    after = move_cost(before, torch.tensor([torch.nan, torch.nan]), rule)
    assert all(torch.equal(one, two) for one, two in zip(before, after, strict=True))
    assert before.worked.tolist() == [1, 0]
    assert before.failed.tolist() == [0, 1]


def test_weight_stays_within_its_bounds():
    rule = CostRule(start=0.05, patience=1, threshold=0.9, least=0.02, most=0.1)
    state = start_cost(2, rule)
    for _ in range(4):
        state = move_cost(state, torch.tensor([1.0, 0.0]), rule)
    assert state.cost.tolist() == pytest.approx([0.1, 0.02])


@pytest.mark.parametrize(("options", "message"), [
    ({"start": 0}, "cost.start > 0, got 0"),
    ({"up": 1}, "cost.up > 1, got 1"),
    ({"down": 0.5}, "cost.down > 1, got 0.5"),
    ({"patience": 0}, "cost.patience to be at least 1, got 0"),
    ({"least": 0.01}, "cost.least <= cost.start <= cost.most, got 0.01, 0.001"),
    ({"threshold": 1.5}, r"cost.threshold in \(0, 1\], got 1.5"),
])  # fmt: skip
def test_numbers_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        CostRule(**options)
