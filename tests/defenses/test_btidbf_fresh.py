"""(U) with a new generator in every round."""

import pytest
import torch
from btidbf_parts import run, unet, unlearning

from lit_backdoor.defenses.btidbf import BTIDBFFreshUnlearning


def weights(net):
    return {name: weight.clone() for name, weight in net.state_dict().items()}


def fresh(**options):
    return unlearning(BTIDBFFreshUnlearning, **options)


def test_each_round_starts_from_the_same_weights_and_leaves_earlier_triggers_as_they_are():
    one, two = run(fresh(rounds=1)), fresh(rounds=2)
    begun, begin = [], two.begin_phase

    def noted(span):
        begin(span)
        if span.phase == "invert":
            begun.append(weights(two.generator))

    two.begin_phase = noted
    run(two)
    for name, start in unet().state_dict().items():
        torch.testing.assert_close(begun[0][name], start, rtol=0, atol=0)
        torch.testing.assert_close(begun[1][name], start, rtol=0, atol=0)
        torch.testing.assert_close(two.found(0).state_dict()[name], one.found(0).state_dict()[name])
    assert any((begun[1][name] != weight).any() for name, weight in two.found(1).state_dict().items())
    assert two.generator is two.found(1)


def test_kind_that_the_votes_choose_is_kept():
    stage = run(fresh(generator=[unet(seed=1), unet(seed=2)], rounds=2))
    assert len(stage.generators) == 4
    assert stage.found(1) is stage.generators[2 + stage.chosen]
    start = unet(seed=1 + stage.chosen).state_dict()
    left = unet(seed=2 - stage.chosen).state_dict()
    assert any((weight != start[name]).any() for name, weight in stage.found(1).state_dict().items())
    for name, weight in stage.generators[3 - stage.chosen].state_dict().items():
        torch.testing.assert_close(weight, left[name], rtol=0, atol=0)


def test_half_of_the_steps_and_a_share_of_the_rest_unlearn_the_newest_trigger():
    stage = run(fresh(rounds=3))
    torch.manual_seed(0)
    drawn = [stage.unlearned() for _ in range(1200)]
    counts = [sum(net is stage.found(number) for net in drawn) / len(drawn) for number in range(3)]
    assert counts == pytest.approx([1 / 6, 1 / 6, 2 / 3], abs=0.05)
