"""Training on batches that are poisoned anew."""

import pytest
import tiny
import torch
from torch.nn import functional as F

from lit_backdoor.attacks import RedrawnTraining
from lit_backdoor.triggers import WaNet


def adam(parameters):
    return torch.optim.Adam(parameters, 1e-3)


def training(**options):
    return RedrawnTraining(tiny.classifier(), **{"optimizer": adam, "schedule": "constant", **options})


def batch(count=20):
    images = torch.rand(count, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    return {"image": images, "label": torch.arange(count) % 4, "index": torch.arange(count)}


@pytest.fixture
def stage():
    made = training(poison=0.1, cover=0.25)
    return tiny.fit(made, tiny.data(tiny.attack()), limit_train_batches=1)


def test_first_rows_are_poisoned_next_ones_are_covers_and_the_rest_is_untouched(stage):
    given = batch()
    images, labels, poisons, covers = stage.planted(given, 0.1, 0.25)
    assert (poisons, covers) == (2, 5)
    stamped = tiny.attack().trigger(given["image"], given["index"])
    assert torch.equal(images[:7], stamped[:7])
    assert torch.equal(images[7:], given["image"][7:])
    assert labels.tolist() == [0, 0, *given["label"][2:].tolist()]
    assert torch.equal(batch()["image"], given["image"])


def test_loss_is_the_cross_entropy_of_the_planted_batch(stage):
    stage.eval()
    given = batch()
    found, (images, labels, *_) = stage.losses(given), stage.planted(given, 0.1, 0.25)
    torch.testing.assert_close(found["loss"], F.cross_entropy(stage.classifier(images), labels))


def test_covers_noise_is_drawn_anew(stage):
    stage.trigger = WaNet()
    (first, *_), (second, *_) = stage.planted(batch(), 0.1, 0.25), stage.planted(batch(), 0.1, 0.25)
    assert torch.equal(first[:2], second[:2])  # the warp
    assert not torch.equal(first[2:7], second[2:7])
    assert torch.equal(first[7:], second[7:])


def test_other_rows_are_poisoned_in_another_epoch():
    seen = []
    stage, planted = training(), None
    planted = stage.planted

    def watch(given, *shares):
        seen.append(given["index"][:2].tolist())
        return planted(given, *shares)

    stage.planted = watch
    tiny.fit(stage, tiny.data(tiny.attack()), max_epochs=2)
    assert len(seen) == 6
    assert seen[:3] != seen[3:]


def test_the_target_of_the_policy_is_used():
    stage = training(poison=0.5, cover=0.0)
    tiny.fit(stage, tiny.data(tiny.attack(rate=0.1)), limit_train_batches=1)
    assert (stage.planted(batch(), 0.5, 0.0).labels[:10] == 0).all()


@pytest.mark.parametrize(("poison", "cover"), [(0.0, 0.1), (1.0, 0.0), (0.5, 0.5), (0.1, -0.1)])
def test_errors(poison, cover):
    with pytest.raises(ValueError, match="Expected"):
        training(poison=poison, cover=cover)


def test_no_attack_is_refused():
    with pytest.raises(ValueError, match=r"data\.attack to be set"):
        tiny.fit(training(), tiny.data())
