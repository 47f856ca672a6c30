"""MOTH: its training batch, its choice of pairs, a toy that it cleans and one that it cannot."""

import pruning_parts as parts
import pytest
import tiny
import torch
from torch.nn import functional as F

from lit_backdoor.defenses.moth import Orthogonalization
from lit_backdoor.functional.cost_schedule import CostRule


def sgd(parameters):
    return torch.optim.SGD(parameters, lr=0.01, momentum=0.9)


def hardened(**options):
    given = {"optimizer": sgd, "schedule": "constant", "batch_norm": "eval", "round_epochs": 8, **options}
    return tiny.fit(Orthogonalization(parts.backdoored(), **given), parts.data(), max_epochs=80)


def test_step_is_the_cross_entropy_of_a_batch_with_stamps_both_ways():
    stage = Orthogonalization(
        parts.backdoored(), share=0.5, batch_norm="eval", optimizer=lambda p: torch.optim.SGD(p, 0)
    )
    tiny.fit(stage, parts.data(), max_epochs=1)
    stage.source.fill_(0)
    stage.target.fill_(1)
    stage.masks.copy_(0.2 * torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0)))
    stage.patterns.copy_(torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(1)))
    images, labels = torch.rand(6, 3, 8, 8), torch.tensor([0, 1, 0, 0, 1, 0])
    stamped = images.clone()
    for row, way in ((0, 0), (2, 0), (1, 1)):  # half of each class, the first ones
        mask, pattern = stage.masks[way], stage.patterns[way]
        stamped[row] = images[row] * (1 - mask) + mask * pattern
    expected = F.cross_entropy(parts.backdoored().eval()(stamped), labels)
    torch.testing.assert_close(stage.losses({"image": images, "label": labels})["loss"], expected)
    stage.masks[0] = 0.3  # too large: not stamped
    stamped[[0, 2]] = images[[0, 2]]
    expected = F.cross_entropy(parts.backdoored().eval()(stamped), labels)
    torch.testing.assert_close(stage.losses({"image": images, "label": labels})["loss"], expected)


def test_first_rounds_take_each_class_and_later_ones_the_pair_that_gains_most():
    stage = Orthogonalization(tiny.classifier())
    stage.configure_model()
    chosen = [stage.choose(number, torch.Generator().manual_seed(number)) for number in range(4)]
    assert chosen == [(-1, 0), (-1, 1), (-1, 2), (-1, 3)]
    stage.gain[1, 3] = stage.gain[3, 1] = 1.0
    stage.gain[2, 0] = 1.5
    pairs = [stage.choose(number, torch.Generator().manual_seed(number)) for number in range(4, 204)]
    assert all(source != target for source, target in pairs)
    assert 120 < sum(set(pair) == {1, 3} for pair in pairs) < 180  # .7, and a sixth of the rest
    stage.note_distance(-1, 2, 40.0)
    stage.note_distance(0, 2, 50.0)
    assert float(stage.distance[1, 2]) == 40.0
    assert float(stage.gain[0, 2]) == pytest.approx(0.25)


def test_toy_is_cleaned_by_the_triggers_found_on_it():
    assert parts.rates(hardened().result(), parts.faint) == (1.0, 0.0)


def test_toy_stays_backdoored_where_triggers_are_held_at_nothing():
    stage = hardened(cost=CostRule(start=1e3, down=1.01, patience=1000))
    assert parts.rates(stage.result(), parts.faint) == (1.0, 1.0)


def test_nothing_of_the_attack_reaches_it():
    assert parts.equal(*parts.without_attack(lambda: Orthogonalization(tiny.classifier(), search_steps=2)))


@pytest.mark.parametrize("options", [{"share": 0.0}, {"search_steps": 0}, {"search_lr": 0.0}, {"round_epochs": 0}])
def test_numbers_out_of_range_are_refused(options):
    with pytest.raises(ValueError, match=f"Expected {next(iter(options))}"):
        Orthogonalization("path", **options)
