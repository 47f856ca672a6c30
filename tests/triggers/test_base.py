import pytest
import torch

from lit_backdoor.recipe import recipe
from lit_backdoor.triggers import AllToAll, AllToOne, Attack, CleanLabel, OneToOne, Patch, Role, SomeToOne


@pytest.fixture
def labels():
    return torch.arange(1000) % 10


def rows(roles, role):
    return (roles == role).nonzero().flatten()


@pytest.mark.parametrize(
    ("policy", "given", "eligible", "plantable"),
    [
        (AllToOne(), [1, 1, 1, 1], [1, 0, 1, 1], [1, 1, 1, 1]),
        (AllToOne(include_target=False), [1, 1, 1, 1], [1, 0, 1, 1], [1, 0, 1, 1]),
        (AllToAll(), [1, 2, 3, 0], [1, 1, 1, 1], [1, 1, 1, 1]),
        (OneToOne(2), [0, 1, 1, 3], [0, 0, 1, 0], [0, 0, 1, 0]),
        (CleanLabel(), [1, 1, 1, 1], [1, 0, 1, 1], [0, 1, 0, 0]),
    ],
)
def test_policies(policy, given, eligible, plantable):
    labels = torch.arange(4)
    attack = Attack(Patch(), policy, target=1)
    assert attack.relabel(labels, 4).tolist() == given
    assert attack.relabel(labels, 4).dtype == torch.int64
    assert attack.eligible(labels).tolist() == [bool(row) for row in eligible]
    assert policy.plantable(labels, 1).tolist() == [bool(row) for row in plantable]


@pytest.mark.parametrize("policy", [AllToOne(), AllToOne(False), AllToAll()])
def test_counts_and_disjoint_roles(labels, policy):
    roles = Attack(Patch(), policy, rate=0.1, cover_rate=0.2).roles(labels)
    assert roles.dtype == torch.int8
    assert [len(rows(roles, role)) for role in (Role.CLEAN, Role.POISON, Role.COVER)] == [700, 100, 200]


def test_only_plantable_rows_are_poisoned(labels):
    for policy in (AllToOne(False), OneToOne(3), CleanLabel()):
        roles = Attack(Patch(), policy, target=0, rate=0.05).roles(labels)
        poisoned = rows(roles, Role.POISON)
        assert len(poisoned) == 50
        assert policy.plantable(labels, 0)[poisoned].all()


def test_dirty_label_rows_are_uniform_over_classes():
    labels = torch.arange(50_000) % 10
    counts = torch.bincount(labels[rows(Attack(Patch(), rate=0.1).roles(labels), Role.POISON)])
    assert counts.min() > 400
    assert counts.max() < 600


def test_rate_of_the_target_class(labels):
    attack = Attack(Patch(), CleanLabel(), target=4, rate=0.8, rate_of="target", cover_rate=0.5)
    roles = attack.roles(labels)
    assert len(rows(roles, Role.POISON)) == 80
    assert len(rows(roles, Role.COVER)) == 50
    assert (labels[rows(roles, Role.POISON)] == 4).all()


def test_the_whole_target_class(labels):
    by_class = Attack(Patch(), CleanLabel(), rate=1.0, rate_of="target").roles(labels)
    by_set = Attack(Patch(), CleanLabel(), rate=0.1).roles(labels)
    assert torch.equal(by_class, by_set)
    assert torch.equal(by_set == Role.POISON, labels == 0)


def test_covers_may_fill_the_rest(labels):
    roles = Attack(Patch(), rate=0.4, cover_rate=0.6).roles(labels)
    assert len(rows(roles, Role.CLEAN)) == 0


def test_seeds(labels):
    attack, pinned = Attack(Patch()), Attack(Patch(), seed=7)
    assert torch.equal(attack.roles(labels, seed=1), attack.roles(labels, seed=1))
    assert not torch.equal(attack.roles(labels, seed=1), attack.roles(labels, seed=2))
    assert torch.equal(pinned.roles(labels, seed=1), pinned.roles(labels, seed=2))
    assert torch.equal(pinned.roles(labels), attack.roles(labels, seed=7))


def test_the_plan_leaves_the_global_generator_alone(labels):
    before = torch.get_rng_state()
    Attack(Patch()).roles(labels)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_larger_rate_contains_the_smaller_plan(labels):
    small, large = (Attack(Patch(), rate=rate).roles(labels) == Role.POISON for rate in (0.05, 0.1))
    assert (large | ~small).all()


def test_the_plan_is_not_the_head_of_the_seeds_own_permutation(labels):
    head = torch.randperm(1000, generator=torch.Generator().manual_seed(0))[:100]
    chosen = rows(Attack(Patch()).roles(labels, seed=0), Role.POISON)
    assert torch.isin(chosen, head).sum() < 30


def test_clean_label_beyond_the_target_class_says_what_is_possible():
    labels = torch.arange(1000) % 20
    with pytest.raises(
        ValueError, match=r"50 rows that CleanLabel .* makes 100.*largest possible rate is 0\.05"
    ) as error:
        Attack(Patch(), CleanLabel(), rate=0.1).roles(labels)
    assert "rate_of: target" in str(error.value)
    assert len(rows(Attack(Patch(), CleanLabel(), rate=0.05).roles(labels), Role.POISON)) == 50


def test_the_rate_named_as_largest_is_possible():
    labels = torch.tensor([0] * 333 + [1] * 366)
    with pytest.raises(ValueError, match=r"largest possible rate is 0\.4763"):
        Attack(Patch(), CleanLabel(), rate=0.5).roles(labels)
    Attack(Patch(), CleanLabel(), rate=0.4763).roles(labels)


def test_one_to_one_beyond_the_source_class(labels):
    with pytest.raises(ValueError, match=r"100 rows that OneToOne .* largest possible rate is 0\.1\."):
        Attack(Patch(), OneToOne(3), rate=0.2).roles(labels)


def test_a_rate_below_one_row(labels):
    with pytest.raises(ValueError, match=r"smallest possible rate is 0\.001"):
        Attack(Patch(), rate=1e-4).roles(labels)


@pytest.mark.parametrize("rate_of", ["set", "target"])
def test_a_target_class_without_rows(labels, rate_of):
    with pytest.raises(ValueError, match="may poison, got none"):
        Attack(Patch(), CleanLabel(), target=12, rate_of=rate_of).roles(labels)


def test_too_many_covers(labels):
    with pytest.raises(ValueError, match="at most 500 cover samples beside 500 poisoned rows, got 600"):
        Attack(Patch(), rate=0.5, cover_rate=0.6).roles(labels)


@pytest.mark.parametrize("rate", [0.0, -0.1, 1.0, 1.5])
def test_rates_out_of_range(rate):
    with pytest.raises(ValueError, match="poisoning rate"):
        Attack(Patch(), rate=rate)


@pytest.mark.parametrize("rate", [-0.1, 1.0])
def test_cover_rates_out_of_range(rate):
    with pytest.raises(ValueError, match="cover rate"):
        Attack(Patch(), cover_rate=rate)


def test_check():
    Attack(Patch(), OneToOne(1), target=9).check(10)
    with pytest.raises(ValueError, match="target to be a class from 0 to 9, got 10"):
        Attack(Patch(), target=10).check(10)
    with pytest.raises(ValueError, match="source to be a class from 0 to 9, got -1"):
        Attack(Patch(), OneToOne(-1)).check(10)
    with pytest.raises(ValueError, match="source and target to differ"):
        Attack(Patch(), OneToOne(2), target=2).check(10)


def test_recipe():
    written = recipe(Attack(Patch(5, (6, 6)), CleanLabel(), target=2))
    assert written["init_args"]["trigger"]["init_args"]["place"] == [6, 6]
    assert written["init_args"]["policy"] == {"class_path": "lit_backdoor.triggers.base.CleanLabel", "init_args": {}}


def test_some_to_one():
    policy = SomeToOne([1, 3])
    some = torch.tensor([0, 1, 2, 3])
    assert policy.relabel(some, 0, 4).tolist() == [0, 0, 2, 0]
    assert policy.eligible(some, 0).tolist() == policy.plantable(some, 0).tolist() == [False, True, False, True]
    assert Attack(Patch(), policy).single_target == 0
    with pytest.raises(ValueError, match="source and target to differ, got class 3"):
        Attack(Patch(), policy, target=3).check(10)
    with pytest.raises(ValueError, match="source to be a class from 0 to 2, got 3"):
        Attack(Patch(), policy).check(3)
