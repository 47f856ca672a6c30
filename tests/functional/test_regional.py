import itertools

import pytest
import torch
from torch.nn import functional as F

from lit_backdoor.functional.regional import identity_kernels, region_bounds, regional_conv, regions_per_side


def draw(seed):
    return torch.Generator().manual_seed(seed)


def one_region_at_a_time(features, kernels):
    """Every output value written out: zero padding, regions that do not see each other."""
    regions, channels, size = len(kernels), features.shape[1], kernels.shape[-1]
    middle = (size - 1) // 2
    result = torch.zeros_like(features)
    for i, j in itertools.product(range(regions), repeat=2):
        (top, bottom), (left, right) = (
            region_bounds(side, regions)[at : at + 2] for side, at in zip(features.shape[-2:], (i, j), strict=True)
        )
        for y, x in itertools.product(range(top, bottom), range(left, right)):
            for dy, dx in itertools.product(range(size), repeat=2):
                from_y, from_x = y + dy - middle, x + dx - middle
                if top <= from_y < bottom and left <= from_x < right:
                    result[:, :, y, x] += features[:, :, from_y, from_x] @ kernels[i, j, :, :, dy, dx].T
    assert channels == result.shape[1]
    return result


@pytest.mark.parametrize(
    ("shape", "regions", "size"), [((2, 3, 7, 5), 3, 3), ((1, 2, 4, 4), 2, 2), ((2, 1, 5, 5), 1, 3)]
)
def test_each_region_has_kernels_of_its_own(shape, regions, size):
    features = torch.randn(shape, generator=draw(0), dtype=torch.float64)
    kernels = torch.randn(regions, regions, shape[1], shape[1], size, size, generator=draw(1), dtype=torch.float64)
    torch.testing.assert_close(regional_conv(features, kernels), one_region_at_a_time(features, kernels))


@pytest.mark.parametrize(
    ("size", "regions", "bounds"), [(16, 3, [0, 5, 11, 16]), (32, 3, [0, 11, 21, 32]), (4, 4, [0, 1, 2, 3, 4])]
)
def test_uneven_regions_cover_every_position_once(size, regions, bounds):
    assert region_bounds(size, regions) == bounds


@pytest.mark.parametrize(
    ("height", "width", "regions"), [(32, 32, 3), (16, 8, 3), (33, 20, 4), (64, 64, 4), (96, 64, 5)]
)
def test_papers_rule_for_regions(height, width, regions):
    assert regions_per_side(height, width) == regions


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_identity_kernels_change_nothing(size):
    features = torch.randn(2, 4, 9, 9, generator=draw(0))
    assert torch.equal(regional_conv(features, identity_kernels(4, 3, size)), features)


@pytest.mark.parametrize("seed", range(5))
def test_appendix_a(seed):
    """Eq. 9 to 12: a kernel on the features of a 2x2 region equals a change of its pixels, a combination of neighbors."""
    x, w, u = (torch.randn(1, 1, 2, 2, generator=draw(10 * seed + k), dtype=torch.float64) for k in range(3))
    w_kernel, u_kernel = w[None, None], u[None, None]
    (w0, w1, w2, w3), (x0, x1, x2, x3), (u0, u1, u2, u3) = w.flatten(), x.flatten(), u.flatten()

    features = regional_conv(x, w_kernel)
    by_hand = [w0 * x0 + w1 * x1 + w2 * x2 + w3 * x3, w0 * x1 + w2 * x3, w0 * x2 + w1 * x3, w0 * x3]
    torch.testing.assert_close(features.flatten(), torch.stack(by_hand))  # Eq. 9

    delta = torch.stack(
        [(u0 - 1) * x0 + u1 * x1 + u2 * x2 + u3 * x3, (u0 - 1) * x1 + u2 * x3, (u0 - 1) * x2 + u1 * x3, (u0 - 1) * x3]
    )  # Eq. 12
    of_backdoored_pixels = regional_conv(x + delta.view(1, 1, 2, 2), w_kernel)  # Eq. 10
    torch.testing.assert_close(regional_conv(features, u_kernel), of_backdoored_pixels)  # Eq. 11 = Eq. 10


def test_kernels_get_gradients_from_their_region_only():
    kernels = identity_kernels(2, 2).requires_grad_()
    regional_conv(torch.rand(1, 2, 6, 6), kernels)[..., :3, 3:].sum().backward()
    touched = kernels.grad.flatten(2).abs().sum(2) > 0
    assert touched.tolist() == [[False, True], [False, False]]


@pytest.mark.parametrize("regions", [0, 5])
def test_more_regions_than_positions_are_refused(regions):
    with pytest.raises(ValueError, match=f"from 1 to 4 regions per side .* got {regions}"):
        region_bounds(4, regions)


def test_convolution_agrees_with_torchs_for_one_region():
    features, kernels = torch.randn(2, 3, 8, 8, generator=draw(0)), torch.randn(1, 1, 3, 3, 3, 3, generator=draw(1))
    torch.testing.assert_close(regional_conv(features, kernels), F.conv2d(features, kernels[0, 0], padding=1))
