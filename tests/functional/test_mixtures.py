import pytest
import torch

from lit_backdoor.functional.mixtures import mixtures


def test_each_is_a_convex_combination_of_two_images_of_the_batch():
    images = torch.eye(6)[:, :, None, None].expand(6, 6, 2, 2)  # its channels say of which images a mixture is made
    torch.manual_seed(0)
    found = mixtures(images)
    assert found.shape == images.shape
    torch.testing.assert_close(found.sum(1), torch.ones(6, 2, 2))
    assert (found >= 0).all()
    assert (found.gt(0).flatten(2).all(2).sum(1) <= 2).all()
    assert (found.amax((1, 2, 3)) < 1).any()


def test_every_image_is_in_its_mixture_and_shares_are_uniform():
    images = torch.eye(50)[:, :, None, None]
    torch.manual_seed(1)
    own = torch.cat([mixtures(images).flatten(1).diagonal() for _ in range(40)])
    assert float(own.mean()) == pytest.approx(0.5, abs=0.03)
    assert float(own.quantile(0.9)) == pytest.approx(0.9, abs=0.03)


def test_one_image_is_mixed_with_itself():
    image = torch.rand(1, 3, 4, 4)
    torch.testing.assert_close(mixtures(image), image)
