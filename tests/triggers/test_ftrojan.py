import numpy as np
import pytest
import torch
from scipy.fft import dctn
from trigger_parts import plan

from lit_backdoor.triggers import FTrojan

# OpenCV's RGB to YUV: Y, then U = .492 (B - Y) and V = .877 (R - Y).
LUMA = np.array([0.299, 0.587, 0.114])


def spectra(added):
    """Orthonormal DCTs of luma, U and V of ``[3, H, W]``."""
    luma = np.tensordot(LUMA, added, 1)
    chroma = [luma, 0.492 * (added[2] - luma), 0.877 * (added[0] - luma)]
    return [dctn(channel, norm="ortho") for channel in chroma]


def test_raises_two_frequencies_of_the_chroma():
    gray = torch.full((1, 3, 32, 32), 0.5)
    added = (FTrojan(30 / 255)(gray, torch.zeros(1)) - gray)[0].double().numpy()
    luma, *chroma = spectra(added)
    assert np.abs(luma).max() < 1e-3
    for spectrum in chroma:
        assert spectrum[15, 15] * 255 == pytest.approx(30, rel=5e-3)
        assert spectrum[31, 31] * 255 == pytest.approx(30, rel=5e-3)
        spectrum[[15, 31], [15, 31]] = 0
        assert np.abs(spectrum).max() < 1e-5


def test_every_block_of_a_large_image_and_a_cut_one():
    gray = torch.full((1, 3, 40, 64), 0.5)
    added = FTrojan()(gray, torch.zeros(1)) - gray
    assert torch.equal(added[..., :32, :32], added[..., :32, 32:])
    assert torch.equal(added[..., 32:, :32], added[..., :8, :32])


def test_one_channel_is_changed_itself():
    gray = torch.full((1, 1, 16, 16), 0.5)
    trigger = FTrojan(0.2, ((3, 5),), 16)
    spectrum = dctn((trigger(gray, torch.zeros(1)) - gray)[0, 0].double().numpy(), norm="ortho")
    assert spectrum[3, 5] == pytest.approx(0.2, abs=1e-5)
    spectrum[3, 5] = 0
    assert np.abs(spectrum).max() < 1e-5


def test_plan():
    _, roles, given = plan("ftrojan")
    assert ((roles == 1).sum(), (roles == 2).sum()) == (100, 0)
    assert (given[roles == 1] == 0).all()


def test_errors():
    with pytest.raises(ValueError, match="magnitude of FTrojan"):
        FTrojan(30)
    with pytest.raises(ValueError, match="bands from 0 to 31"):
        FTrojan(bands=((32, 3),))
    with pytest.raises(ValueError, match="1 or 3 channels"):
        FTrojan()(torch.rand(1, 2, 32, 32), torch.zeros(1))
