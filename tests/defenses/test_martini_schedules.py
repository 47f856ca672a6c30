import pytest
import torch

from lit_backdoor.defenses.martini import EasiestFirst, InTurn, LabelSpecific, Mixed
from lit_backdoor.defenses.martini.schedules import Aim

EASE = torch.ones(5)
ALL = {"in_turn": InTurn, "easiest_first": EasiestFirst, "label_specific": LabelSpecific, "mixed": Mixed}


def aims(schedule, count, ease=EASE, seed=3):
    return [schedule().aim(number, ease, seed) for number in range(count)]


@pytest.mark.parametrize("schedule", ALL.values(), ids=ALL.keys())
def test_first_turn_takes_every_class_once(schedule):
    assert sorted(aim.target for aim in aims(schedule, 5)) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("schedule", ALL.values(), ids=ALL.keys())
def test_a_round_depends_on_its_number_and_the_seed_only(schedule):
    assert aims(schedule, 20) == aims(schedule, 20)
    assert aims(schedule, 20) != aims(schedule, 20, seed=4)
    assert schedule().aim(13, EASE, 3) == aims(schedule, 20)[13]


def test_turns_have_orders_of_their_own():
    orders = {tuple(aim.target for aim in aims(InTurn, 50)[5 * turn : 5 * turn + 5]) for turn in range(10)}
    assert len(orders) > 3


def test_easy_classes_come_more_often_and_none_is_forgotten():
    ease = torch.tensor([1.0, 0.5, 0.1, 0.0, 0.0])
    counts = torch.tensor([aim.target for aim in aims(EasiestFirst, 600, ease)]).bincount(minlength=5)
    assert counts.argsort(descending=True)[:2].tolist() == [0, 1]
    assert counts.min() > 5


def test_label_specific_aims_have_another_class_as_their_source():
    found = aims(LabelSpecific, 200)
    assert all(aim.source is not None and aim.source != aim.target for aim in found)
    assert len({(aim.source, aim.target) for aim in found}) == 20


def test_mixed_takes_universal_and_label_specific_turns():
    kinds = [aim.source is None for aim in aims(Mixed, 20)]
    assert kinds == ([True] * 5 + [False] * 5) * 2


def test_rows_that_a_trigger_is_for():
    labels = torch.tensor([0, 1, 2, 1])
    assert Aim(1).rows(labels).tolist() == [True, False, True, False]
    assert Aim(1, source=2).rows(labels).tolist() == [False, False, True, False]
