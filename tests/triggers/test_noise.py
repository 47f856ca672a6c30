import pytest
import torch

from lit_backdoor.triggers import NoisyCover, Patch, Rotation, WaNet


@pytest.mark.parametrize("norm", [1.0, 5.0, 10.0])
@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 27, 31)])
def test_noise_has_the_norm_in_each_image(norm, shape):
    noise = NoisyCover(Patch(), norm).noise(torch.zeros(5, *shape), torch.arange(5))
    torch.testing.assert_close(noise.flatten(1).norm(dim=1), torch.full((5,), norm), rtol=1e-5, atol=0)


def test_cover_is_the_triggered_image_plus_the_noise():
    images, index = torch.full((3, 3, 32, 32), 0.5), torch.arange(3)
    trigger = NoisyCover(Patch(2, (0, 0), (0.4, 0.5, 0.6)), 1.0)
    added = trigger.cover(images, index) - trigger(images, index)  # nothing is clipped at this norm
    torch.testing.assert_close(added, trigger.noise(images, index), atol=1e-6, rtol=0)


def test_noise_is_gaussian():
    noise = NoisyCover(Patch(), 5.0).noise(torch.zeros(50, 3, 32, 32), torch.arange(50)).double()
    scaled = noise * (3 * 32 * 32) ** 0.5 / 5
    assert scaled.mean().item() == pytest.approx(0, abs=0.02)
    assert (scaled**4).mean().item() == pytest.approx(3, abs=0.1)
    assert (scaled.abs() < 1).double().mean().item() == pytest.approx(0.6827, abs=0.005)


def test_test_time_and_poisoned_images_are_the_inner_triggers(images, index):
    inner = WaNet()
    trigger = NoisyCover(inner)
    assert torch.equal(trigger(images, index), inner(images, index))
    assert torch.equal(trigger.poison(images, index), inner.poison(images, index))


def test_what_benign_rows_get_is_the_inner_triggers(images):
    trigger = NoisyCover(Rotation())
    assert trigger.alters_benign
    assert not NoisyCover(Patch()).alters_benign
    expected = Rotation().benign(images, torch.Generator().manual_seed(1))
    assert torch.equal(trigger.benign(images, torch.Generator().manual_seed(1)), expected)


def test_errors():
    with pytest.raises(ValueError, match="norm to be positive"):
        NoisyCover(Patch(), 0)
