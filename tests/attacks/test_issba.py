"""ISSBA: encoder and decoder."""

import pytest
import tiny
import torch

from lit_backdoor.attacks import ISSBATraining
from lit_backdoor.models import SecretEncoder
from lit_backdoor.triggers import Attack, Secret


def attack(bits=4, **options):
    torch.manual_seed(0)
    return Attack(Secret(SecretEncoder(bits, 8, **options), seed=3), target=0, rate=0.1)


def adam(parameters):
    return torch.optim.Adam(parameters, 3e-3)


def test_bits_are_hidden_within_the_bound_and_read_again():
    given, data = attack(bits=2, bound=0.3), tiny.data()
    stage = tiny.fit(ISSBATraining(optimizer=adam), tiny.data(given), max_epochs=100)
    data.setup()
    images = data.images(next(iter(data.loader("root"))))["image"]
    bits = torch.randint(2, (len(images), 2)).float()
    with torch.no_grad():
        hidden = given.trigger.encoder(images, bits)
        right = ((stage.decoder(hidden) > 0) == (bits > 0)).float().mean()
    assert (hidden - images).abs().max() <= 0.3 + 1e-6
    assert right > 0.75  # chance is .5


def test_the_secret_is_the_seeds(index, images):
    one, again, other = (Secret(SecretEncoder(40, 4), seed).bits(images.device) for seed in (3, 3, 4))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    assert set(one.tolist()) == {0.0, 1.0}
    trigger = Secret(SecretEncoder(40, 4), 3)
    expected = trigger.encoder(images, one.expand(6, -1))
    assert torch.equal(trigger(images, index), expected)


def test_loss_is_that_of_the_bits_then_that_of_the_image_as_well():
    stage = ISSBATraining(bits_weight=2.0, image_weight=3.0, bits_first=0.5)
    tiny.fit(stage, tiny.data(attack()), max_epochs=2, limit_train_batches=1)
    images = torch.rand(5, 3, 16, 16)
    for first in (0.5, 1.0):
        stage.bits_first = first
        torch.manual_seed(7)
        found = stage.losses({"image": images})
        torch.manual_seed(7)
        bits = torch.randint(2, (5, 4)).float()
        hidden = stage.trigger.encoder(images, bits)
        chance = stage.decoder(hidden).sigmoid()
        of_bits = -(bits * chance.log() + (1 - bits) * (1 - chance).log()).mean()
        change = (hidden - images).square().mean() if stage.current_epoch >= first * 2 else 0
        torch.testing.assert_close(found["loss"], 2 * of_bits + 3 * change)


@pytest.mark.parametrize("options", [{"bits_weight": 0.0}, {"image_weight": -1.0}, {"bits_first": 2.0}])
def test_settings_are_checked(options):
    with pytest.raises(ValueError, match="Expected bits_weight"):
        ISSBATraining(**options)


@pytest.mark.parametrize(("options", "message"), [({"bits": 0}, "at least 1"), ({"bound": 0.0}, "bound of")])
def test_settings_of_the_encoder_are_checked(options, message):
    with pytest.raises(ValueError, match=message):
        SecretEncoder(**options)


@pytest.fixture
def images():
    return torch.rand(6, 3, 16, 16)


@pytest.fixture
def index():
    return torch.arange(6)
