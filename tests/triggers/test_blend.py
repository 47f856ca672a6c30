import numpy as np
import pytest
import torch
from PIL import Image

from lit_backdoor.triggers import Blend


@pytest.mark.parametrize(("alpha", "pattern"), [(0.2, "uniform"), (0.1, "gaussian"), (1.0, "uniform")])
def test_formula(images, index, alpha, pattern):
    trigger = Blend(alpha, pattern, seed=4)
    picture = trigger(torch.zeros_like(images), index).numpy() / alpha
    expected = (1 - alpha) * images.numpy() + alpha * picture
    np.testing.assert_allclose(trigger(images, index).numpy(), expected, atol=1e-6)


def test_noise_is_what_it_says(index):
    uniform = Blend(1.0, "uniform")(torch.zeros(1, 3, 200, 200), index[:1])
    gaussian = Blend(1.0, "gaussian")(torch.zeros(1, 3, 200, 200), index[:1])
    assert uniform.mean().item() == pytest.approx(0.5, abs=0.01)
    assert uniform.std().item() == pytest.approx(12**-0.5, abs=0.01)
    assert gaussian.mean().item() == pytest.approx(0.5, abs=0.01)
    assert gaussian.std().item() == pytest.approx(0.24, abs=0.01)  # 1/4, less for the clipping at two sigma


def test_the_seed_makes_the_noise(images, index):
    one, same, other = (Blend(seed=seed)(images, index) for seed in (0, 0, 1))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_image_file_is_resized(images, index, tmp_path):
    picture = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    path = tmp_path / "kitty.png"
    Image.fromarray(picture).save(path)
    resized = np.asarray(Image.fromarray(picture).resize((32, 32), Image.Resampling.BICUBIC)) / 255
    expected = 0.8 * images.numpy() + 0.2 * resized.transpose(2, 0, 1)
    np.testing.assert_allclose(Blend(0.2, str(path))(images, index).numpy(), expected, atol=1e-6)


def test_errors():
    with pytest.raises(ValueError, match=r"alpha of Blend in \(0, 1\]"):
        Blend(0)
    with pytest.raises(ValueError, match="Did you mean 'gaussian'"):
        Blend(pattern="gausian")
