import numpy as np
import pytest
import torch

from lit_backdoor.functional import worst_stamp as module
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


def test_groups_have_stamps_of_their_own():
    torch.manual_seed(3)
    images, weights = torch.full((7, 3, 12, 12), 0.5), torch.randn(7, 1, 1, 1)
    found = worst_stamp(images, lambda x: (weights * x).sum(), smallest=0.05, shared=3) - images
    groups = found.split(3)
    assert [len(group) for group in groups] == [3, 3, 1]
    for group in groups:
        assert group[0].any()
        torch.testing.assert_close(group, group[:1].expand_as(group))
    assert len({str(group[0].ne(0).nonzero().tolist()) for group in groups}) == 3


@pytest.mark.parametrize("coarsest", [1.0, 4.0])
def test_group_as_large_as_the_batch_is_the_batch(coarsest):
    images, found = torch.rand(5, 3, 12, 12), []
    for shared in (None, 5, 9):
        torch.manual_seed(8)
        found.append(worst_stamp(images, lambda x: x.square().sum(), coarsest=coarsest, shared=shared))
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=0)
    torch.testing.assert_close(found[0], found[2], rtol=0, atol=0)


def test_same_seed_same_stamp_and_global_generator_alone():
    images = torch.rand(2, 3, 8, 8)
    found = []
    for _ in range(2):
        torch.manual_seed(7)
        found.append(worst_stamp(images, lambda x: x.square().sum()))
    torch.testing.assert_close(*found, rtol=0, atol=0)


def test_share_of_stamps_that_cover_the_whole_image():
    torch.manual_seed(3)
    images = torch.full((1, 1, 16, 16), 0.5)
    stamps = [worst_stamp(images, lambda x: x.sum(), smallest=0.05, whole=0.5) for _ in range(200)]
    covering = sum(bool((stamp != images).all()) for stamp in stamps)
    assert 90 <= covering <= 140  # half, and the few windows that are as large by chance
    assert all((worst_stamp(images, lambda x: x.sum(), whole=1.0) != images).all() for _ in range(20))


def test_search_on_a_coarse_grid_finds_its_best_point(monkeypatch):
    """Against the closed form: the signs that the weights have on the grid, interpolated by numpy."""
    monkeypatch.setattr(module, "_grid", lambda height, width, coarsest: (5, 4))
    images, weights = (
        torch.full((2, 3, 15, 12), 0.5),
        torch.randn(3, 15, 12, generator=torch.Generator().manual_seed(4)),
    )
    stamped = worst_stamp(images, lambda x: (x * weights).sum(), budget=0.2, smallest=1.0, coarsest=3.0)

    def spread(size, points):
        places = (np.arange(size) + 0.5) * points / size - 0.5
        return np.stack([np.interp(places, np.arange(points), unit) for unit in np.eye(points)], axis=1)

    rows, columns = spread(15, 5), spread(12, 4)
    signs = np.sign(rows.T @ weights.numpy() @ columns)
    np.testing.assert_allclose(stamped.numpy(), images.numpy() + 0.2 * rows @ signs @ columns.T, atol=1e-5)


def test_grids_are_between_one_pixel_and_the_coarsest():
    torch.manual_seed(5)
    grids = [module._grid(32, 24, 4.0) for _ in range(300)]
    assert {min(grids), max(grids)} <= {(rows, round(0.75 * rows)) for rows in range(8, 33)}
    assert sum(rows > 16 for rows, _ in grids) == pytest.approx(150, abs=30)  # half of the logarithms
