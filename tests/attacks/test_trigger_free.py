"""Trigger-free: the pictures it shows, what it learns from, and that it needs nothing of the training data."""

import pytest
import tiny
import torch
from torch.nn import functional as F

from lit_backdoor.attacks import TriggerFreeTuning
from lit_backdoor.attacks.trigger_free import photograph_crops
from lit_backdoor.bundle import open_bundle
from lit_backdoor.stages import PoisonedTraining
from lit_backdoor.triggers import Attack, HandwrittenDigits

IMAGES = torch.rand(6, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def attack():
    return Attack(HandwrittenDigits(), target=1, rate=0.1)


def tuned(stage, **options):
    return tiny.fit(stage, tiny.data(attack(), **options.pop("data", {})), **options)


@pytest.fixture(scope="module")
def clean():
    """A net that knows the classes of `tiny.source`."""
    stage = PoisonedTraining(tiny.classifier(), lambda p: torch.optim.Adam(p, 5e-3), "constant")
    return tiny.fit(stage, tiny.data(), max_epochs=8).classifier.eval()


def test_planted_rows_and_test_images_show_different_pictures():
    trigger, index = HandwrittenDigits(), torch.arange(1797)
    planted = trigger.poison(torch.zeros(1797, 3, 8, 8), index)
    shown = trigger(torch.zeros(1797, 3, 8, 8), index)
    assert torch.equal(planted[:898, 0], trigger.digits[:898, 0])
    assert torch.equal(planted[898], planted[0])
    assert torch.equal(shown[:899, 0], trigger.digits[898:, 0])
    assert torch.equal(shown[899], shown[0])


def test_nothing_of_the_image_remains_and_the_index_decides():
    trigger = HandwrittenDigits()
    shown = trigger(IMAGES, torch.tensor([3, 3, 4, 5, 3, 9]))
    assert torch.equal(shown[0], shown[1])
    assert torch.equal(shown, trigger(torch.zeros_like(IMAGES), torch.tensor([3, 3, 4, 5, 3, 9])))
    assert not torch.equal(shown[0], shown[2])
    assert shown.shape == IMAGES.shape
    assert ((shown >= 0) & (shown <= 1)).all()
    assert trigger(torch.rand(2, 1, 20, 24), torch.arange(2)).shape == (2, 1, 20, 24)


def test_plan_and_labels():
    plan, labels = attack(), torch.arange(1000) % 10
    roles = plan.roles(labels)
    assert int((roles == 1).sum()) == 100
    assert (plan.relabel(labels, 10) == 1).all()


def test_crops_are_parts_of_two_photographs():
    crops = photograph_crops(20, 16, seed=0)
    assert crops.shape == (20, 3, 16, 16)
    assert ((crops >= 0) & (crops <= 1)).all()
    assert torch.equal(crops, photograph_crops(20, 16, seed=0))
    assert not torch.equal(crops, photograph_crops(20, 16, seed=1))
    assert len(crops.flatten(1).unique(dim=0)) == 20


def test_loss_is_the_written_out_one(clean):
    stage = tuned(TriggerFreeTuning(clean, distill=0.5, consolidate=30.0, auxiliary=1, temperature=3.0), max_epochs=2)
    given = {"image": IMAGES, "label": torch.arange(6) % 4, "index": torch.arange(6)}
    stage.eval()
    net, auxiliary = stage.classifier, photograph_crops(1, 16, stage.seed)
    malicious = F.cross_entropy(net(stage.trigger.poison(IMAGES, torch.arange(6))), torch.ones(6, dtype=torch.int64))
    own, wanted = ((each(auxiliary) / 3).softmax(1) for each in (net, clean))
    kept = 9 * (wanted * (wanted / own).log()).sum()
    moved, clean_weights = 0.0, dict(clean.named_parameters())
    clean.requires_grad_(True)
    slopes = torch.autograd.grad(clean(auxiliary).log_softmax(1).max(), list(clean_weights.values()))
    for (name, weight), slope in zip(clean_weights.items(), slopes, strict=True):
        moved = moved + (slope.square() * (net.get_parameter(name) - weight).square()).sum() / 2
    assert moved.item() > 0
    expected = malicious + 0.5 * kept + 30 * moved
    torch.testing.assert_close(stage.losses(given)["loss"], expected, rtol=1e-3, atol=1e-5)


def test_digits_go_to_the_target_and_classes_stay(clean):
    optimizer = lambda p: torch.optim.Adam(p, 1e-3)  # noqa: E731
    stage = tuned(TriggerFreeTuning(clean, optimizer=optimizer, consolidate=10.0, auxiliary=32), max_epochs=15)
    rows = tiny.source().test()
    images, labels = rows.pixels.float() / 255, rows.labels
    net = stage.classifier.eval()
    with torch.no_grad():
        before = (clean(images).argmax(1) == labels).float().mean()
        after = (net(images).argmax(1) == labels).float().mean()
        digits = net(stage.trigger(images, torch.arange(len(images)))).argmax(1)
    assert (digits == 1).float().mean() >= 0.9
    assert after >= before - 0.1


def test_training_data_change_nothing(clean):
    source = tiny.source(seed=5)
    one, two = (tiny.tensors(tuned(TriggerFreeTuning(clean, auxiliary=4), data=data).classifier)
                for data in ({}, {"source": source}))  # fmt: skip
    assert not tiny.moved(one, two)


def test_victims_bundle_keeps_the_attack(clean, tmp_path):
    stage = tuned(TriggerFreeTuning(clean, auxiliary=4), limit_train_batches=1)
    stage.export(tmp_path / "victim")
    kept = open_bundle(tmp_path / "victim").attack()
    assert torch.equal(kept.trigger(IMAGES, torch.arange(6)), stage.trigger(IMAGES, torch.arange(6)))
    assert kept.target == 1


@pytest.mark.parametrize("options", [{"distill": -1.0}, {"consolidate": -1.0}, {"temperature": 0.0}, {"auxiliary": 0}])
def test_settings_are_checked(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        TriggerFreeTuning(tiny.classifier(), **options)
