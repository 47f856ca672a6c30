import numpy as np
import pytest
import torch
from scipy.spatial.distance import pdist
from sklearn.manifold import trustworthiness

from lit_backdoor.functional.projection import plane


@pytest.fixture
def groups():
    """Three groups of points, far from each other, in seven dimensions."""
    generator = torch.Generator().manual_seed(0)
    centers = 10 * torch.eye(3, 7)
    return (centers[:, None] + torch.randn(3, 12, 7, generator=generator)).flatten(0, 1)


def stress(places, points):
    near, true = pdist(places), pdist(points)
    return np.square(near - true).sum() / np.square(true).sum()


def test_points_of_a_plane_keep_their_distances():
    generator = torch.Generator().manual_seed(0)
    turned = torch.linalg.qr(torch.randn(6, 6, generator=generator))[0][:2]
    points = torch.randn(20, 2, generator=generator) @ turned
    np.testing.assert_allclose(pdist(plane(points)), pdist(points), rtol=1e-3)


def test_mds_fits_distances_better_than_principal_components(groups):
    start = groups - groups.mean(0)
    components = start @ torch.linalg.svd(start)[2][:2].T
    assert stress(plane(groups), groups) < 0.95 * stress(components, groups)


@pytest.mark.parametrize("method", ["mds", "tsne"])
def test_groups_stay_together_and_equal_points_give_equal_places(groups, method):
    found = plane(groups, method)
    assert found.shape == (36, 2)
    torch.testing.assert_close(found.mean(0), torch.zeros(2, dtype=torch.float64), atol=1e-6, rtol=0)
    assert trustworthiness(groups.numpy(), found.numpy(), n_neighbors=5) > 0.8
    assert torch.equal(found, plane(groups, method))


@pytest.mark.parametrize("method", ["mds", "tsne"])
@pytest.mark.parametrize("points", [torch.ones(5, 3), torch.eye(2)], ids=["equal", "two"])
def test_few_or_equal_points_have_places(points, method):
    assert plane(points, method).isfinite().all()


def test_bad_input(groups):
    with pytest.raises(ValueError, match="projection 'pca'"):
        plane(groups, "pca")
    with pytest.raises(ValueError, match=r"at least 2 points of at least 2 dimensions, got shape \[1, 7\]"):
        plane(groups[:1])
    with pytest.raises(ValueError, match="values are finite"):
        plane(groups / 0)
