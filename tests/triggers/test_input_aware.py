import pytest
import tiny
import torch

from lit_backdoor.triggers import InputAware


@pytest.fixture
def trigger():
    return InputAware(tiny.unet(), tiny.unet(1)).eval()


@torch.no_grad()
def test_pattern_is_blended_in_through_the_mask(trigger, images, index):
    mask, pattern = trigger.masks(images), trigger.patterns(images)
    assert mask.shape == (6, 1, 32, 32)
    torch.testing.assert_close(trigger(images, index), (1 - mask) * images + mask * pattern)


@torch.no_grad()
def test_a_cover_carries_its_partners_trigger(trigger, images, index):
    partners = images.flip(0)
    mask, pattern = trigger.masks(partners), trigger.patterns(partners)
    torch.testing.assert_close(trigger.cover(images, index, partners), (1 - mask) * images + mask * pattern)
    torch.testing.assert_close(trigger.cover(images, index, images), trigger(images, index))


def test_a_cover_needs_a_partner(trigger, images, index):
    with pytest.raises(ValueError, match="second image"):
        trigger.cover(images, index)
