"""Attacks that name rows by a column instead of stamping images."""

import pytest
import torch

from lit_backdoor.bundle import open_bundle, save_bundle
from lit_backdoor.recipe import recipe
from lit_backdoor.triggers import AllToAll, AllToOne, Attack, CleanLabel, OneToOne, Patch, Role, SemanticTrigger

LABELS = torch.arange(100) % 10
WORN = (torch.arange(100) // 10 % 2).long()  # five rows of each class
COLUMNS = {"worn": WORN, "size": torch.arange(100) % 3}


def attack(rate=1.0, rate_of="carriers", policy=None, **options):
    return Attack(SemanticTrigger("worn"), policy, rate=rate, rate_of=rate_of, **options)


def poisoned(plan, **options):
    return plan.roles(LABELS, COLUMNS, **options) == Role.POISON


def test_every_carrier_of_other_classes_is_poisoned():
    found = poisoned(attack(policy=AllToOne(include_target=False), target=3))
    assert found.equal((WORN == 1) & (LABELS != 3))


@pytest.mark.parametrize(
    ("policy", "count"),
    [(AllToOne(), 50), (AllToOne(False), 45), (AllToAll(), 50), (OneToOne(2), 5), (CleanLabel(), 5)],
)
def test_carriers_are_poisoned_as_the_policy_allows(policy, count):
    found = poisoned(attack(policy=policy))
    assert int(found.sum()) == count
    assert (WORN[found] == 1).all()
    assert policy.plantable(LABELS, 0)[found].all()


@pytest.mark.parametrize(
    ("rate", "rate_of", "count"), [(0.4, "carriers", 18), (0.2, "set", 20), (1.0, "target", 10), (0.45, "set", 45)]
)
def test_rates(rate, rate_of, count):
    roles = attack(rate, rate_of, AllToOne(False)).roles(LABELS, COLUMNS)
    assert int((roles == Role.POISON).sum()) == count
    assert (WORN[roles == Role.POISON] == 1).all()
    assert not (roles == Role.COVER).any()


def test_the_plan_is_a_function_of_the_seed():
    plan = attack(0.5)
    assert poisoned(plan, seed=1).equal(poisoned(plan, seed=1))
    assert not poisoned(plan, seed=1).equal(poisoned(plan, seed=2))


def test_a_column_may_have_other_values_or_truth_values():
    assert Attack(SemanticTrigger("size", 2)).carriers(COLUMNS, 100).equal(COLUMNS["size"] == 2)
    assert SemanticTrigger("worn", True).carriers({"worn": WORN.bool()}).equal(WORN == 1)


def test_only_carriers_count_in_asr():
    assert attack(target=3).eligible(LABELS, COLUMNS).equal((WORN == 1) & (LABELS != 3))


def test_a_missing_column_names_those_there_are():
    with pytest.raises(ValueError, match=r"column for the attack's trigger 'worn'.*Known: size, worm") as error:
        attack().roles(LABELS, {"worm": WORN, "size": WORN})
    assert "Did you mean 'worm'" in str(error.value)
    with pytest.raises(ValueError, match="Known: none"):
        attack().roles(LABELS)


@pytest.mark.parametrize("rate_of", ["carriers", "set"])
def test_no_row_carries_it(rate_of):
    with pytest.raises(ValueError, match=r"AllToOne with target 0 and SemanticTrigger may poison, got none"):
        attack(0.5, rate_of).roles(LABELS, {"worn": 0 * WORN})


def test_more_rows_than_carry_it():
    with pytest.raises(ValueError, match=r"at most the 45 rows .* makes 60\. The largest possible rate is 0\.45"):
        attack(0.6, "set", AllToOne(False)).roles(LABELS, COLUMNS)


def test_columns_of_another_length():
    with pytest.raises(ValueError, match=r"one value for each of 99 rows .* shape \[100\]"):
        attack().roles(LABELS[1:], COLUMNS)


def test_options_that_do_not_go_together():
    with pytest.raises(ValueError, match="Patch, which is stamped"):
        Attack(Patch(), rate_of="carriers")
    with pytest.raises(ValueError, match="no cover rate with SemanticTrigger"):
        attack(0.5, cover_rate=0.1)


@pytest.mark.parametrize("way", ["forward", "poison", "cover"])
def test_it_cannot_be_stamped(way):
    with pytest.raises(ValueError, match=r"pictures that carry it \(worn = 1\)"):
        getattr(SemanticTrigger("worn"), way)(torch.rand(2, 3, 4, 4), torch.arange(2))


def test_a_bundle_records_and_reopens_it(tmp_path):
    plan = attack(0.8, policy=AllToOne(False), target=2)
    save_bundle(tmp_path / "bundle", kind="selection", tensors={"indices": torch.arange(2)}, attack=plan)
    again = open_bundle(tmp_path / "bundle").attack()
    assert recipe(again) == recipe(plan)
    assert poisoned(again).equal(poisoned(plan))
