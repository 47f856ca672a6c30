"""RNP: its two objectives, a toy that it cleans and one that it leaves as it is."""

import pruning_parts as parts
import pytest
import tiny
import torch
from torch.nn import functional as F

from lit_backdoor.defenses.rnp import RNPOracle, RNPRecovery, RNPUnlearning


def fast(parameters):
    return torch.optim.SGD(parameters, lr=0.1, momentum=0.9)


def test_unlearning_climbs_until_the_root_accuracy_is_low():
    stage = RNPUnlearning(parts.backdoored(), floor=0.6, optimizer=fast)
    steps = tiny.recorded(stage)
    tiny.fit(stage, parts.data(), max_epochs=60)
    assert 2 <= len(steps) < 120  # it ended early
    assert parts.rates(stage.result())[0] < 0.6
    first, net = steps[0], parts.backdoored().train()
    expected = -F.cross_entropy(net(first["batch"]["image"]), first["batch"]["label"])
    torch.testing.assert_close(first["loss"], expected.detach())


def test_recovery_minimizes_the_loss_of_the_masked_unlearned_net():
    stage = tiny.fit(RNPRecovery(tiny.classifier(), tiny.classifier(seed=1)), tiny.data(), limit_train_batches=1)
    stage.masks.data.uniform_(0, 1, generator=torch.Generator().manual_seed(1))
    images, labels = torch.rand(6, 3, 16, 16), torch.arange(6) % 4
    net, place = tiny.classifier(seed=1).eval(), 0
    for norm in (m for m in net.modules() if isinstance(m, torch.nn.BatchNorm2d)):
        norm.weight.data *= stage.masks.data[place : (place := place + norm.num_features)]
    torch.testing.assert_close(stage.objective(images, labels)["loss"], F.cross_entropy(net(images), labels))


def test_toy_is_cleaned_where_the_backdoor_fires_in_the_unlearned_net():
    unlearned = parts.backdoored()
    unlearned.net[1].weight.data[1] = 4  # the color channel answers to the noise of clean images
    stage = tiny.fit(RNPRecovery(parts.backdoored(), unlearned), parts.data(), max_epochs=20)
    assert parts.rates(stage.result()) == (1.0, 0.0)
    assert stage.outcome().numbers["pruned_channels"] == 1


def test_toy_goes_on_unchanged_where_unlearning_changed_nothing():
    stage = tiny.fit(RNPRecovery(parts.backdoored(), parts.backdoored()), parts.data(), max_epochs=20)
    assert parts.rates(stage.result()) == (1.0, 1.0)
    assert not tiny.moved(tiny.tensors(parts.backdoored()), tiny.tensors(stage.result()))


def test_what_its_choices_see_is_said():
    assert (RNPRecovery.selection, RNPOracle.selection) == ("root", "oracle")


def test_nothing_of_the_attack_reaches_it():
    assert parts.equal(*parts.without_attack(lambda: RNPUnlearning(tiny.classifier(), floor=0.01)))
    assert parts.equal(*parts.without_attack(lambda: RNPRecovery(tiny.classifier(), tiny.classifier(seed=1))))


def test_resumed_runs_equal_those_that_were_not_stopped(tmp_path):
    for name, make in (
        ("unlearn", lambda: RNPUnlearning(tiny.classifier(), floor=0.01)),
        ("recover", lambda: RNPRecovery(tiny.classifier(), tiny.classifier(seed=1))),
    ):
        assert parts.equal(*parts.resumed(make, tmp_path / name))


def test_bad_floor_is_refused():
    with pytest.raises(ValueError, match=r"in \(0, 1\), got 0"):
        RNPUnlearning(tiny.classifier(), floor=0)
