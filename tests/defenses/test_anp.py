"""ANP: its objective, its choice, a toy that it cleans and one that it cannot."""

import pruning_parts as parts
import pytest
import tiny
import torch
from torch.nn import functional as F

from lit_backdoor.bundle import open_bundle
from lit_backdoor.defenses.anp import ANP, ANPOracle
from lit_backdoor.models import wrap_classifier
from lit_backdoor.stages import Evaluation


def coarse(parameters):
    """Masks reach 0 or 1 in a step."""
    return torch.optim.SGD(parameters, lr=1000.0)


def test_loss_is_that_of_the_net_with_changed_weights_and_biases():
    stage = ANP(tiny.classifier(), noise_steps=2)
    steps = tiny.recorded(stage)
    tiny.fit(stage, tiny.data(), max_epochs=1, limit_train_batches=1)
    stage.masks.data.uniform_(0, 1, generator=torch.Generator().manual_seed(1))
    images, labels = torch.rand(6, 3, 16, 16), torch.arange(6) % 4
    noise = torch.linspace(-0.4, 0.4, 2 * stage.channels.count).view(2, -1)
    net, place = tiny.classifier().train(), 0
    for norm in (m for m in net.modules() if isinstance(m, torch.nn.BatchNorm2d)):  # by hand, norm by norm
        part = slice(place, place := place + norm.num_features)
        norm.weight.data *= stage.masks.data[part] + noise[0, part]
        norm.bias.data *= 1 + noise[1, part]
    torch.testing.assert_close(stage.train().noisy_loss(noise, images, labels), F.cross_entropy(net(images), labels))
    for step in steps:
        torch.testing.assert_close(step["loss"], 0.2 * step["clean_loss"] + 0.8 * step["noisy_loss"])


def test_noise_stays_in_bounds_and_raises_the_loss():
    stage = tiny.fit(ANP(tiny.classifier(), epsilon=0.1, noise_steps=3), tiny.data(), limit_train_batches=1).train()
    images, labels = torch.rand(24, 3, 16, 16), torch.arange(24) % 4
    worst = stage.worst_noise(images, labels)
    assert worst.abs().max() <= 0.1
    still = stage.noisy_loss(torch.zeros_like(worst), images, labels)
    assert stage.noisy_loss(worst, images, labels) > still


def test_toy_is_cleaned_where_the_backdoor_has_a_channel_of_its_own():
    victim = parts.backdoored()
    assert parts.rates(victim) == (1.0, 1.0)
    stage = tiny.fit(ANP(victim), parts.data(), max_epochs=20)
    assert parts.rates(stage.result()) == (1.0, 0.0)
    assert stage.outcome().numbers["pruned_channels"] == 1


def test_toy_stays_backdoored_where_the_trigger_is_what_a_class_has():
    stage = tiny.fit(ANP(parts.backdoored()), parts.data(), max_epochs=20)
    assert parts.rates(stage.result(), parts.brighten) == (1.0, 1.0)


def test_choice_keeps_the_accuracy_on_rows_that_no_step_saw():
    stage = ANP(parts.backdoored(), held_out=0.25)
    steps = tiny.recorded(stage)
    objective, seen = stage.objective, []
    stage.objective = lambda images, labels: (seen.append(len(images)), objective(images, labels))[1]
    tiny.fit(stage, parts.data(), max_epochs=1)
    assert sum(seen) == 30  # of 40, in two batches
    assert len(steps) == 2
    stage.masks.data.copy_(torch.tensor([0.3, 0.7]))  # the channel that decides goes first
    stage._stale = True
    assert stage.choose() == 0.3  # a mask at the threshold is kept
    stage.masks.data.zero_()
    assert stage.choose() == 0.0


def test_what_is_tested_is_what_is_exported(tmp_path):
    datamodule = tiny.data(tiny.attack())
    stage = tiny.fit(ANP(tiny.classifier(), optimizer=coarse, tolerance=0.9), datamodule, max_epochs=3)
    stage.export(tmp_path / "bundle")
    exported = open_bundle(tmp_path / "bundle")
    assert parts.equal(tiny.tensors(exported.build()), tiny.tensors(stage.result()))
    assert tiny.tested(stage, datamodule) == tiny.tested(Evaluation(str(tmp_path / "bundle")), datamodule)
    weights = torch.cat([m.weight for m in exported.build().modules() if isinstance(m, torch.nn.BatchNorm2d)])
    assert int((weights == 0).sum()) == exported.numbers["pruned_channels"] > 0


def test_oracle_takes_the_threshold_of_the_lowest_asr():
    stage = tiny.fit(ANPOracle(tiny.classifier(), tolerance=0.9), tiny.data(tiny.attack()), max_epochs=1)
    asr = {each: stage.success(each) for each in (0.0, *(step / 20 for step in range(1, 19)))}
    least = (1 - 0.9) * stage.accuracy(0.0)
    assert asr[stage.threshold] == min(rate for each, rate in asr.items() if not each or stage.accuracy(each) >= least)
    assert ANPOracle.selection == "oracle"
    assert ANP.selection == "root"


def test_nothing_of_the_attack_reaches_it():
    assert parts.equal(*parts.without_attack(lambda: ANP(tiny.classifier())))


def test_resumed_run_equals_one_that_was_not_stopped(tmp_path):
    straight, again = parts.resumed(lambda: ANP(tiny.classifier()), tmp_path)
    assert parts.equal(straight, again)
    assert (straight["masks"] < 1).any()


def test_bad_arguments_are_refused():
    for options in ({"alpha": 0}, {"epsilon": 0}, {"noise_steps": 0}, {"tolerance": 1}, {"held_out": 0}):
        with pytest.raises(ValueError, match="Expected"):
            ANP(tiny.classifier(), **options)
    plain = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 16), torch.nn.Flatten())
    net = wrap_classifier(plain, split="0", num_classes=4, input_size=16, mean=(0.0,) * 3, std=(1.0,) * 3)
    with pytest.raises(ValueError, match="Expected a classifier with batch norms"):
        tiny.fit(ANP(net), tiny.data())
