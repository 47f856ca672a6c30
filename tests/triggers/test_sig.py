import numpy as np
import pytest
import torch

from lit_backdoor.triggers import Sig


@pytest.mark.parametrize(("width", "delta", "frequency"), [(32, 40 / 255, 6), (64, 20 / 255, 6), (37, 0.1, 4)])
def test_formula(index, width, delta, frequency):
    images = torch.rand(6, 3, 20, width)
    signal = delta * np.sin(2 * np.pi * np.arange(width) * frequency / width)
    expected = np.clip(images.numpy() + signal, 0, 1)
    np.testing.assert_allclose(Sig(delta, frequency)(images, index).numpy(), expected, atol=1e-6)


def test_defaults_are_the_papers():
    assert Sig().delta == pytest.approx(0.1568627450980392)
    assert Sig().frequency == 6


@pytest.mark.parametrize("delta", [0, -0.1, 40])
def test_delta_in_units_of_255_is_an_error(delta):
    with pytest.raises(ValueError, match="40/255"):
        Sig(delta)
