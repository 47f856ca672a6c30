import numpy as np
import torch
from scipy.ndimage import maximum_filter, minimum_filter

from lit_backdoor.functional.one_layer import identity_map, neighborhood, transformed

IMAGES = torch.rand(3, 2, 7, 9, generator=torch.Generator().manual_seed(0))


def test_neighborhood_is_scipys():
    found, images = neighborhood(IMAGES, side=5).numpy(), IMAGES.numpy()
    footprint = np.ones((1, 1, 5, 5))
    mean = np.zeros_like(images)
    for y in range(7):
        for x in range(9):
            around = images[:, :, max(0, y - 2) : y + 3, max(0, x - 2) : x + 3]
            mean[:, :, y, x] = around.mean((2, 3))
    most = maximum_filter(images, footprint=footprint, mode="nearest")
    least = minimum_filter(images, footprint=footprint, mode="nearest")
    np.testing.assert_allclose(found, np.concatenate((images, most, least, mean), 1), atol=1e-6)


def test_identity_changes_nothing_whatever_the_neighborhood():
    assert torch.equal(transformed(neighborhood(IMAGES), identity_map(2)), IMAGES)


def test_one_map_for_all_images_or_one_for_each():
    around = neighborhood(IMAGES, side=3)
    maps = torch.randn(3, 2, 8, generator=torch.Generator().manual_seed(1))
    each = transformed(around, maps)
    for number in range(3):
        expected = np.einsum("ck,khw->chw", maps[number].numpy(), around[number].numpy()).clip(0, 1)
        np.testing.assert_allclose(each[number].numpy(), expected, atol=1e-6)
        torch.testing.assert_close(transformed(around, maps[number])[number], each[number])
