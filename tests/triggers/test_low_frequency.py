import numpy as np
import pytest
import torch
from scipy.fft import dctn
from trigger_parts import plan

from lit_backdoor.triggers import LowFrequency


@pytest.mark.parametrize("bands", [2, 5])
def test_spectrum_lies_in_the_lowest_frequencies(bands):
    gray = torch.full((1, 3, 32, 40), 0.5)
    added = (LowFrequency(0.1, bands)(gray, torch.zeros(1)) - gray)[0].double().numpy()
    spectrum = dctn(added, axes=(1, 2), norm="ortho")
    assert np.abs(spectrum[:, :bands, :bands]).max() > 0.1
    spectrum[:, :bands, :bands][:, 0, 0] += 1  # the constant is not among them
    assert np.abs(spectrum[:, 0, 0] - 1).max() < 1e-5
    spectrum[:, :bands, :bands] = 0
    assert np.abs(spectrum).max() < 1e-5
    assert np.abs(added).max() == pytest.approx(0.1, abs=1e-6)


def test_seeds_and_clipping(images, index):
    assert not torch.equal(LowFrequency(seed=1)(images, index), LowFrequency()(images, index))
    pattern = LowFrequency().pattern(images)
    assert torch.equal(LowFrequency()(images, index), (images + pattern).clamp(0, 1))


def test_plan():
    _, roles, given = plan("lf")
    assert ((roles == 1).sum(), (roles == 2).sum()) == (100, 0)
    assert (given[roles == 1] == 0).all()


def test_errors():
    with pytest.raises(ValueError, match="delta of LowFrequency"):
        LowFrequency(16)
    with pytest.raises(ValueError, match="2 bands"):
        LowFrequency(bands=1)
    with pytest.raises(ValueError, match="at least 4 pixels a side for 4 bands"):
        LowFrequency()(torch.rand(1, 3, 3, 8), torch.zeros(1))
