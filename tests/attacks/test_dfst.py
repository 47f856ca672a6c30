"""DFST: its trigger, which rows it takes, when it searches for injectors and what one is."""

import pytest
import tiny
import torch
from torch.nn import functional as F
from trigger_parts import style_net

from lit_backdoor.attacks import DFSTTraining
from lit_backdoor.bundle import open_bundle
from lit_backdoor.functional.martini import ssim_loss
from lit_backdoor.functional.one_layer import identity_map, neighborhood, transformed
from lit_backdoor.triggers import AllToOne, Attack, Stylized


def sgd(parameters):
    return torch.optim.SGD(parameters, lr=0.05)


def attack(**options):
    given = {"policy": AllToOne(include_target=False), "target": 0, "rate": 0.25, **options}
    return Attack(Stylized(style_net()), **given)


def training(**options):
    given = {"rounds": 1, "poison": 0.1, "detox": 0.2, "injector_steps": 3, "optimizer": sgd, "schedule": "constant"}
    return DFSTTraining(tiny.classifier(), **{**given, **options})


def batch(count=20):
    images = torch.rand(count, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    return {"image": images, "label": torch.arange(count) % 4, "index": torch.arange(count)}


@pytest.fixture(scope="module")
def stage():
    return tiny.fit(training(), tiny.data(attack()), max_epochs=2).eval()


def test_the_plan_leaves_the_target_class_out_and_relabels_the_rest():
    plan, labels = attack(rate=0.05), torch.arange(1000) % 10
    roles = plan.roles(labels)
    assert int((roles == 1).sum()) == 50
    assert not (labels[roles == 1] == 0).any()
    assert (plan.relabel(labels, 10) == 0).all()


@torch.no_grad()
def test_trigger_is_a_share_of_the_painted_image():
    trigger, given = Stylized(style_net(), strength=0.25), batch()
    expected = 0.75 * given["image"] + 0.25 * trigger.net(given["image"])
    torch.testing.assert_close(trigger(given["image"], given["index"]), expected)
    assert not any(weight.requires_grad for weight in trigger.parameters())


def test_rows_of_other_classes_are_triggered_and_the_next_go_through_an_injector(stage):
    given = batch()
    others = given["label"] != 0
    images, labels = given["image"][(given["label"] == 0).int().argsort(stable=True)], given["label"]
    found = stage.planted(given, 0.1, 0.2)
    assert (found.poisons, found.covers) == (2, 4)
    torch.testing.assert_close(found.images[:2], stage.trigger(images[:2], given["index"][:2]))
    torch.testing.assert_close(found.images[2:6], transformed(neighborhood(images[2:6]), stage.injectors[0]))
    assert torch.equal(found.images[6:], images[6:])
    assert found.labels.tolist() == [0, 0, *labels[others][2:].tolist(), *[0] * 5]
    assert torch.equal(batch()["image"], given["image"])


def test_no_row_of_the_target_class_is_triggered_even_if_there_are_only_such(stage):
    given = {**batch(), "label": torch.zeros(20, dtype=torch.int64)}
    assert torch.equal(stage.planted(given, 0.1).images, given["image"])


def test_loss_is_the_cross_entropy_of_what_is_planted(stage):
    found = stage.planted(batch(), 0.1, 0.2)
    expected = F.cross_entropy(stage.classifier(found.images), found.labels)
    torch.testing.assert_close(stage.losses(batch())["loss"], expected)


@pytest.mark.parametrize(("rounds", "epochs", "begun"), [(0, 2, []), (1, 4, [2]), (3, 8, [2, 4, 6]), (3, 4, [1, 2, 3])])
def test_rounds_are_spread_over_the_epochs(rounds, epochs, begun):
    stage, seen = training(rounds=rounds), []
    stage.injector = lambda: (seen.append(stage.current_epoch), identity_map(3))[1]
    tiny.fit(stage, tiny.data(attack()), max_epochs=epochs, limit_train_batches=1)
    assert seen == begun


def test_nothing_goes_through_an_injector_before_the_first_round():
    stage = tiny.fit(training(), tiny.data(attack()), max_epochs=2, limit_train_batches=1)
    stage._round = lambda epoch: 0
    assert stage.planted(batch(), 0.1, 0.2).covers == 0


def test_injector_follows_the_gradient_of_the_written_out_loss(stage):
    rows = stage._sample()
    assert not (rows[1] == 0).any()
    images, labels, index = (column[:8] for column in rows)
    with torch.no_grad():
        rise = stage.classifier.features(stage.trigger(images, index)) - stage.classifier.features(images)
    channel = int(rise.mean((0, 2, 3)).argmax())
    assert stage.compromised(images, index).tolist() == [channel]

    def loss(weights):
        changed = transformed(neighborhood(images), weights)
        features = stage.classifier.features(changed)
        wrong = F.cross_entropy(stage.classifier.head(features), torch.zeros_like(labels))
        return wrong + 0.1 * ssim_loss(images, changed) - 0.3 * features[:, channel].mean()

    start = identity_map(3).requires_grad_()
    optimizer = torch.optim.Adam([start], 0.01, (0.5, 0.9))
    start.grad = torch.autograd.grad(loss(start), start)[0]
    optimizer.step()
    sample, stage._sample = stage._sample, lambda: (images, labels, index)
    stage.injector_steps = 1
    torch.testing.assert_close(stage.injector(), start.detach(), atol=1e-4, rtol=0)
    stage.injector_steps = 30
    assert loss(stage.injector()) < loss(start)
    stage._sample = sample


def test_victims_bundle_keeps_the_trigger(stage, tmp_path):
    stage.export(tmp_path / "victim")
    kept, images = open_bundle(tmp_path / "victim").attack().trigger, batch()["image"]
    assert torch.equal(kept(images, torch.arange(20)), stage.trigger(images, torch.arange(20)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rounds": -1}, "rounds"),
        ({"injector_steps": 0}, "injector_steps"),
        ({"similar": -1.0}, "similar"),
        ({"channels": 0.0}, "compromised channels"),
        ({"rows": 0.0}, "rows for an injector"),
        ({"poison": 0.0}, "poisoned rows"),
    ],
)
def test_settings_are_checked(options, message):
    with pytest.raises(ValueError, match=message):
        training(**options)


def test_too_few_epochs_for_the_rounds_are_refused():
    with pytest.raises(ValueError, match="more epochs than the 3 rounds"):
        tiny.fit(training(rounds=3), tiny.data(attack()), max_epochs=3)
