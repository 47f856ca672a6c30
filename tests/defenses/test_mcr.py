"""MCR: its loss, the point it chooses, a toy that it cleans and one that it cannot."""

import pruning_parts as parts
import pytest
import tiny
import torch
from torch.nn import functional as F

from lit_backdoor.defenses.mcr import ModeConnectivityRepair
from lit_backdoor.functional.curves import quadratic_bezier


def color_blind():
    net = parts.backdoored()
    net.net[1].weight.data[1] = 0
    return net


def test_loss_is_the_cross_entropy_at_a_drawn_point_of_the_curve():
    stage = ModeConnectivityRepair(tiny.classifier(), tiny.classifier(seed=1), held_out=0.01)
    steps, places, weights_at = tiny.recorded(stage), [], stage.weights_at
    stage.weights_at = lambda place: places.append(place) or weights_at(place)
    tiny.fit(stage, tiny.data(), max_epochs=6, limit_train_batches=1)
    assert len({*places[:6]}) == 6
    start, end, net = tiny.classifier(), tiny.classifier(seed=1), tiny.classifier().train()
    with torch.no_grad():
        for own, one, two in zip(net.parameters(), start.parameters(), end.parameters(), strict=True):
            own.copy_(quadratic_bezier(one, (one + two) / 2, two, places[0]))
    batch = steps[0]["batch"]
    kept = batch["index"] != stage.data.get_view("root").index[-1]
    assert kept.sum() == len(kept) - 1
    expected = F.cross_entropy(net(batch["image"][kept]), batch["label"][kept])
    torch.testing.assert_close(steps[0]["loss"], expected.detach(), rtol=1e-4, atol=1e-5)


def test_point_has_the_highest_held_out_accuracy_and_ties_go_to_the_middle():
    stage = tiny.fit(ModeConnectivityRepair(parts.backdoored(), color_blind()), parts.data(), max_epochs=1)
    assert stage.numbers() == {"place": 0.5}
    for best, expected in ((0.8, 0.8), (0.2, 0.2)):
        stage.accuracy_at = lambda place, best=best: float(place == best)
        stage._stale = True
        stage.result()
        assert stage.place == expected


def test_statistics_of_the_result_are_those_of_the_root_set():
    stage = tiny.fit(ModeConnectivityRepair(parts.backdoored(), color_blind()), parts.data(), max_epochs=2)
    net = stage.result()
    images = torch.cat([batch["image"] for batch in stage.passes("root")])
    maps = net.net[0](images)
    torch.testing.assert_close(net.net[1].running_mean, maps.mean((0, 2, 3)), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(net.net[1].running_var, maps.var((0, 2, 3)), rtol=1e-2, atol=1e-4)


def test_toy_is_cleaned_where_the_other_end_has_no_backdoor():
    stage = tiny.fit(ModeConnectivityRepair(parts.backdoored(), color_blind()), parts.data(), max_epochs=10)
    assert parts.rates(stage.result(), parts.faint) == (1.0, 0.0)


def test_toy_stays_backdoored_where_both_ends_are():
    stage = tiny.fit(ModeConnectivityRepair(parts.backdoored(), parts.backdoored()), parts.data(), max_epochs=10)
    assert parts.rates(stage.result()) == (1.0, 1.0)


def test_nothing_of_the_attack_reaches_it():
    assert parts.equal(
        *parts.without_attack(lambda: ModeConnectivityRepair(tiny.classifier(), tiny.classifier(seed=1)))
    )


def test_resumed_run_equals_one_that_was_not_stopped(tmp_path):
    make = lambda: ModeConnectivityRepair(tiny.classifier(), tiny.classifier(seed=1))  # noqa: E731
    assert parts.equal(*parts.resumed(make, tmp_path))


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="Expected the place on the curve"):
        ModeConnectivityRepair("path", "path", place=1.0)
    with pytest.raises(ValueError, match="Expected tuned to be a net like the suspect"):
        tiny.fit(ModeConnectivityRepair(tiny.classifier(), tiny.classifier(channels=8)), tiny.data())
