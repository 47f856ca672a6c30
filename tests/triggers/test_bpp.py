import numpy as np
import pytest
import torch
from PIL import Image
from trigger_parts import plan

from lit_backdoor.triggers import Bpp


@pytest.mark.parametrize("levels", [2, 8, 32])
def test_formula(images, index, levels):
    x = images.numpy().astype(np.float64) * 255
    expected = np.round(x / 255 * (levels - 1)) / (levels - 1)
    np.testing.assert_allclose(Bpp(levels)(images, index), expected, atol=1e-6)


def test_two_levels_are_pils_threshold(index):
    picture = Image.effect_noise((32, 32), 80)
    expected = np.asarray(picture.point(lambda value: 255 * (value > 127)))
    image = torch.from_numpy(np.array(picture))[None, None].float() / 255
    np.testing.assert_array_equal(Bpp(2)(image, index[:1])[0, 0] * 255, expected)


def test_covers_get_the_error_of_their_partner(images, index):
    faint, others = 0.4 + 0.2 * images, images.flip(0)  # nothing is clipped
    error = np.round(others.numpy() * 7) / 7 - others.numpy()
    stamped = Bpp().cover(faint, index, others)
    np.testing.assert_allclose(stamped, faint.numpy() + error, atol=1e-6)
    assert (Bpp()(stamped, index) - stamped).abs().max() > 0.05  # its own colors are not few


def test_poisons_and_covers_keep_apart():
    labels, roles, given = plan("bpp")
    assert ((roles == 1).sum(), (roles == 2).sum()) == (100, 100)
    assert (given[roles == 1] == 0).all()
    assert torch.equal(given[roles != 1], labels[roles != 1])


def test_errors(images, index):
    with pytest.raises(ValueError, match="at least 2 levels of Bpp, got 1"):
        Bpp(1)
    with pytest.raises(ValueError, match="second image for each image that Bpp stamps"):
        Bpp().cover(images, index)
