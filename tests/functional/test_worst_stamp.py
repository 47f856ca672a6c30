import pytest
import torch

from lit_backdoor.functional.worst_stamp import random_window, worst_stamp


def boxes(count, smallest, height=32, width=24):
    torch.manual_seed(0)
    return [random_window(height, width, smallest)[0, 0] for _ in range(count)]


def test_window_is_one_rectangle():
    for window in boxes(50, 0.02):
        rows, columns = window.any(1), window.any(0)
        assert window.sum() == rows.sum() * columns.sum()
        for side in (rows, columns):
            places = side.nonzero().flatten()
            assert len(places) == places[-1] - places[0] + 1 >= 2


def test_areas_are_uniform_in_their_logarithm():
    shares = torch.stack([window.float().mean() for window in boxes(600, 0.01)])
    small, middle = (shares < 0.1).float().mean(), shares.median()
    assert 0.4 < small < 0.6
    assert 0.07 < middle < 0.14
    assert {bool(window.all()) for window in boxes(20, 1.0)} == {True}


@pytest.mark.parametrize("budget", [0.1, 1.0])
def test_stamp_is_the_same_on_all_images_and_within_its_bound(budget):
    torch.manual_seed(1)
    images = torch.full((4, 3, 16, 16), 0.5) + 0.01 * torch.rand(4, 1, 1, 1)
    stamped = worst_stamp(images, lambda x: x.sum(), budget=budget, smallest=0.1)
    change = stamped - images
    window = change.ne(0).any(0).any(0)
    share = window.float().mean()
    torch.testing.assert_close(change[:, :, window].amax(), change[:, :, window].amin(0).max(), atol=0.02, rtol=0)
    assert change.abs().max() <= min(1.0, budget / float(share) ** 0.5) + 1e-6
    assert stamped.min() >= 0
    assert stamped.max() <= 1
    assert not stamped.requires_grad


def test_search_finds_what_moves_a_linear_score_most():
    """Against the closed form: within its bound, the best change has the weights' signs."""
    torch.manual_seed(2)
    images, weights = torch.full((3, 3, 12, 12), 0.5), torch.randn(3, 12, 12)
    stamped = worst_stamp(images, lambda x: (x * weights).sum(), budget=0.2, steps=5, smallest=1.0)
    torch.testing.assert_close(stamped, images + 0.2 * weights.sign())


def test_same_seed_same_stamp_and_global_generator_alone():
    images = torch.rand(2, 3, 8, 8)
    found = []
    for _ in range(2):
        torch.manual_seed(7)
        found.append(worst_stamp(images, lambda x: x.square().sum()))
    torch.testing.assert_close(*found, rtol=0, atol=0)
