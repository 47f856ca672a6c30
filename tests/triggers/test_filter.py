import numpy as np
import pytest
import torch

from lit_backdoor.triggers import Filter
from lit_backdoor.triggers.filter import LUMA, STYLES


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("strength", [1.0, 0.4])
def test_formula(images, index, style, strength):
    x, of = images.numpy().transpose(0, 2, 3, 1), STYLES[style]
    luma = (x @ np.array(LUMA))[..., None]
    saturated = luma + of.saturation * (x - luma)
    toned = np.clip(0.5 + of.contrast * (saturated - 0.5), 0, 1)
    tint = np.array(of.tint)
    if of.rim is not None:
        y, x_ = np.meshgrid(np.linspace(-1, 1, 32), np.linspace(-1, 1, 32), indexing="ij")
        away = ((y**2 + x_**2) / 2)[..., None]
        tint = (1 - away) * tint + away * np.array(of.rim)
    filtered = np.array(of.lift) + (tint - np.array(of.lift)) * toned
    expected = (1 - strength) * x + strength * filtered
    stamped = Filter(style, strength)(images, index).numpy().transpose(0, 2, 3, 1)
    np.testing.assert_allclose(stamped, expected, atol=1e-5)


@pytest.mark.parametrize("style", STYLES)
def test_gray_images_get_the_luma_of_the_filtered_gray(index, style):
    gray = torch.rand(6, 1, 8, 8)
    colored = Filter(style)(gray.expand(-1, 3, -1, -1), index)
    luma = (colored * torch.tensor(LUMA)[:, None, None]).sum(1, keepdim=True)
    torch.testing.assert_close(Filter(style)(gray, index), luma, atol=1e-5, rtol=0)


def test_toaster_is_dark_orange_in_the_center_and_light_in_the_corners(index):
    red, green, blue = Filter("toaster")(torch.full((1, 3, 9, 9), 0.8), index[:1])[0]
    assert red[4, 4] > green[4, 4] > blue[4, 4]
    assert all(channel[0, 0] > channel[4, 4] + 0.1 for channel in (red, green, blue))


def test_errors(index):
    with pytest.raises(ValueError, match="Did you mean 'nashville'"):
        Filter("nashvile")
    with pytest.raises(ValueError, match="strength"):
        Filter(strength=0)
    with pytest.raises(ValueError, match="1 or 3 channels"):
        Filter()(torch.rand(1, 4, 8, 8), index[:1])
