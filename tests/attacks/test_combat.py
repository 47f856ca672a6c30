"""COMBAT: its trigger, and what each net learns from."""

import pytest
import tiny
import torch
from torch.nn import functional as F

from lit_backdoor.attacks import COMBATTraining
from lit_backdoor.functional.frequency import low_pass
from lit_backdoor.triggers import Attack, CleanLabel, SmoothNoise

IMAGES = torch.rand(8, 3, 16, 16, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([0, 1, 0, 2, 0, 3, 0, 1])
BATCH = {"image": IMAGES, "label": LABELS, "index": torch.arange(8)}


def sgd(parameters):
    return torch.optim.SGD(parameters, lr=0.05)


@pytest.fixture
def stage():
    options = {"optimizer": sgd, "trigger_optimizer": sgd, "schedule": "constant"}
    made = COMBATTraining(tiny.classifier(), tiny.classifier(1), size_weight=0.5, clean_weight=0.25, **options)
    attack = Attack(SmoothNoise(tiny.unet()), CleanLabel(), target=0, rate=0.1)
    return tiny.fit(made, tiny.data(attack), limit_train_batches=1).eval()


def test_the_triggers_loss_is_the_papers(stage):
    triggered, wanted = stage.trigger(IMAGES, BATCH["index"]), torch.zeros(8, dtype=torch.int64)
    expected = (
        F.cross_entropy(stage.classifier(triggered), wanted)
        + 0.5 * (triggered - IMAGES).square().mean()
        + 0.25 * F.cross_entropy(stage.clean(triggered), LABELS)
    )
    torch.testing.assert_close(stage.trigger_losses(BATCH)["trigger_loss"], expected)


def test_the_size_of_the_change_weighs_what_it_does_for_images_from_minus_one_to_one():
    stage = COMBATTraining(tiny.classifier(), tiny.classifier())
    one, other = 2 * IMAGES - 1, 2 * IMAGES.flip(0) - 1
    own = stage.size_weight * F.mse_loss(IMAGES, IMAGES.flip(0))
    torch.testing.assert_close(own, 0.02 * F.mse_loss(one, other))


def test_triggered_images_do_not_enter_the_classifiers_statistics(stage):
    stage.train()
    before = tiny.tensors(stage.classifier)
    loss = stage.trigger_losses(BATCH)["trigger_loss"]
    assert not tiny.moved(before, tiny.tensors(stage.classifier))
    assert stage.classifier.training
    assert all(slope is not None for slope in torch.autograd.grad(loss, list(stage.trigger.parameters())))


def test_the_classifier_learns_true_labels_half_of_the_class_triggered(stage):
    images = IMAGES.clone()
    images[[0, 2]] = stage.trigger(IMAGES, BATCH["index"])[[0, 2]]
    torch.testing.assert_close(stage.losses(BATCH)["loss"], F.cross_entropy(stage.classifier(images), LABELS))


def test_both_nets_are_trained_and_the_clean_one_is_not():
    attack = Attack(SmoothNoise(tiny.unet()), CleanLabel(), target=0, rate=0.1)
    stage = COMBATTraining(tiny.classifier(), tiny.classifier(1), optimizer=sgd, trigger_optimizer=sgd,
                           schedule="constant")  # fmt: skip
    before = tiny.tensors(stage.classifier), tiny.tensors(attack.trigger)
    tiny.fit(stage, tiny.data(attack), limit_train_batches=1)
    assert tiny.moved(before[0], tiny.tensors(stage.classifier))
    assert tiny.moved(before[1], tiny.tensors(attack.trigger))
    assert not tiny.moved(tiny.tensors(tiny.classifier(1)), tiny.tensors(stage.clean.module))


@torch.no_grad()
def test_trigger_adds_low_frequencies_and_blurs():
    trigger = SmoothNoise(tiny.unet(), strength=0.1, kept=0.5)
    noise = low_pass(2 * trigger.generator(IMAGES) - 1, 0.5)
    changed = F.pad((IMAGES + 0.1 * noise).clamp(0, 1), (1, 1, 1, 1), mode="reflect")
    expected = torch.zeros_like(IMAGES)
    for row, down in enumerate((0.11, 0.78, 0.11)):
        for column, across in enumerate((0.11, 0.78, 0.11)):
            expected += down * across * changed[..., row : row + 16, column : column + 16]
    torch.testing.assert_close(trigger(IMAGES, BATCH["index"]), expected)


@pytest.mark.parametrize(
    ("options", "message"), [({"size_weight": -1.0}, "weights of 0"), ({"poison": 0.0}, "target class's rows")]
)
def test_settings_are_checked(options, message):
    with pytest.raises(ValueError, match=message):
        COMBATTraining(tiny.classifier(), tiny.classifier(), **options)
