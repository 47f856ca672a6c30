import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist

from lit_backdoor.functional.collision import (
    DISTANCES,
    gram_distance,
    locate_loss,
    mean_distance,
    mmd2,
    pool_features,
    relative_change,
)


def mmd2_reference(x, y, factors=(0.25, 0.5, 1, 2, 4)):
    z = np.concatenate([x, y]).astype(np.float64)
    squares = cdist(z, z, "sqeuclidean")
    mean = squares[~np.eye(len(z), dtype=bool)].mean()
    n, total = len(x), 0.0
    for factor in factors:
        kernel = np.exp(-squares / (factor * mean))
        total += kernel[:n, :n].mean() + kernel[n:, n:].mean() - 2 * kernel[:n, n:].mean()
    return total


def batches(n=12, m=7, d=30, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, d, generator=generator, dtype=dtype)
    return x, torch.randn(m, d, generator=generator, dtype=dtype) + 0.5


def test_mmd2_equals_reference():
    x, y = batches()
    assert mmd2(x, y).item() == pytest.approx(mmd2_reference(x.numpy(), y.numpy()), abs=1e-6)
    one = mmd2(x, y, bandwidths=(3.0,)).item()
    assert one == pytest.approx(mmd2_reference(x.numpy(), y.numpy(), (3.0,)), abs=1e-6)


def test_mmd2_of_equal_batches_is_zero_and_of_far_ones_is_not():
    x, _ = batches()
    assert mmd2(x, x).item() == pytest.approx(0, abs=1e-6)
    assert mmd2(x, x + 10).item() > 1


def test_mmd2_keeps_its_digits_far_from_the_origin():
    x, y = batches()
    near = mmd2(x, y).item()
    assert mmd2(x + 1000, y + 1000).item() == pytest.approx(near, rel=1e-3)
    assert mmd2(x * 1000, y * 1000).item() == pytest.approx(near, rel=1e-4)


def test_mmd2_bandwidth_passes_no_gradient():
    x, y = batches(4, 3, 5, torch.float64)
    x.requires_grad_()
    mean = torch.pdist(torch.cat([x, y])).square().mean().item()

    def fixed(inputs):
        z = torch.cat([inputs, y])
        kernel = sum(torch.exp(-torch.cdist(z, z).square() / (s * mean)) for s in (0.25, 0.5, 1, 2, 4))
        return kernel[:4, :4].mean() + kernel[4:, 4:].mean() - 2 * kernel[:4, 4:].mean()

    (expected,) = torch.autograd.grad(fixed(x), x)
    (got,) = torch.autograd.grad(mmd2(x, y), x)
    torch.testing.assert_close(got, expected)


def test_mmd2_of_constant_batches_has_finite_gradient():
    x = torch.ones(4, 8, requires_grad=True)
    loss = mmd2(x, torch.ones(3, 8))
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-6)
    assert torch.isfinite(x.grad).all()


def test_mmd2_of_a_pair_of_rows():
    assert mmd2(torch.zeros(1, 2), torch.ones(1, 2)).item() == pytest.approx(
        mmd2_reference(np.zeros((1, 2)), np.ones((1, 2))), abs=1e-6
    )


@pytest.mark.parametrize("shapes", [((2, 3, 4), (2, 12)), ((2, 3), (2, 4)), ((0, 3), (2, 3))])
def test_mmd2_refuses_other_shapes(shapes):
    with pytest.raises(ValueError, match="pool_features"):
        mmd2(torch.zeros(shapes[0]), torch.zeros(shapes[1]))


def test_gram_distance_equals_reference():
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(5, 3, 2, 4, generator=generator), torch.randn(6, 3, 2, 4, generator=generator)

    def gram(maps):
        return np.mean([f.reshape(3, 8) @ f.reshape(3, 8).T for f in maps.numpy().astype(np.float64)], axis=0)

    expected = np.sum((gram(x) - gram(y)) ** 2) / (4 * 3**2 * 8**2)
    assert gram_distance(x, y).item() == pytest.approx(expected, rel=1e-5)
    tokens = [t.flatten(2).transpose(1, 2) for t in (x, y)]
    assert gram_distance(*tokens).item() == pytest.approx(expected, rel=1e-5)


def test_gram_distance_refuses_other_sizes():
    with pytest.raises(ValueError, match="same channels and positions"):
        gram_distance(torch.zeros(2, 3, 4, 4), torch.zeros(2, 3, 2, 2))


def test_mean_distance_equals_reference():
    x, y = batches()
    assert mean_distance(x, y).item() == pytest.approx(float(((x.mean(0) - y.mean(0)).numpy() ** 2).mean()), rel=1e-5)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((2, 3, 8, 8), 48),
        ((2, 3, 2, 9), 3 * 2 * 4),
        ((2, 3, 1, 1), 3),
        ((2, 64, 5), 16 * 5),
        ((2, 65, 5), 17 * 5),
        ((2, 7, 5), 7 * 5),
        ((2, 23, 5), 16 * 5),
        ((2, 1, 5), 5),
        ((2, 2, 5), 10),
        ((2, 11), 11),
    ],
)
def test_pooled_features_are_short_vectors(shape, expected):
    pooled = pool_features(torch.randn(shape, dtype=torch.bfloat16))
    assert pooled.shape == (2, expected)
    assert pooled.dtype == torch.float32
    assert pool_features(pooled) is pooled


def test_tokens_pool_like_the_map_they_are():
    maps = torch.randn(2, 5, 8, 8)
    tokens = maps.flatten(2).transpose(1, 2)
    torch.testing.assert_close(pool_features(tokens), pool_features(maps))
    first = torch.randn(2, 1, 5)
    with_class = pool_features(torch.cat([first, tokens], dim=1))
    torch.testing.assert_close(with_class, torch.cat([first[:, 0], pool_features(maps)], dim=1))


def test_pooling_refuses_volumes():
    with pytest.raises(ValueError, match="Tap another layer"):
        pool_features(torch.zeros(1, 2, 3, 4, 5))


def test_locate_loss_weights_the_last_layer_most():
    calls = iter([1.0, 2.0, 3.0])
    taps = [torch.zeros(2, 3)] * 3
    loss = locate_loss(taps, taps, lambda x, y: torch.tensor(next(calls)))
    assert loss.item() == pytest.approx(1 + 0.1 * 2 + 0.01 * 3)


@pytest.mark.parametrize("name", DISTANCES)
def test_locate_loss_takes_raw_and_prepared_features(name):
    generator = torch.Generator().manual_seed(0)
    raw = [torch.randn(6, 4, 8, 8, generator=generator), torch.randn(6, 9, 5, generator=generator)]
    other = [torch.randn(t.shape, generator=generator, requires_grad=True) for t in raw]
    distance = DISTANCES[name]
    expected = distance(other[0], raw[0]) + 0.5 * distance(other[1], raw[1])
    loss = locate_loss(other, [distance.prepare(t) for t in raw], distance, decay=0.5)
    torch.testing.assert_close(loss, expected)
    loss.backward()
    assert all(t.grad.abs().sum() > 0 for t in other)


@pytest.mark.parametrize("name", DISTANCES)
def test_distances_are_full_precision_under_autocast(name):
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(6, 4, 8, 8, generator=generator).bfloat16() for _ in range(2))
    expected = DISTANCES[name](x.float(), y.float())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = DISTANCES[name](x, y)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, expected, rtol=0, atol=0)


def test_locate_loss_refuses_uneven_layers():
    tap = torch.zeros(2, 3)
    with pytest.raises(ValueError, match="1 and 2 layers"):
        locate_loss([tap], [tap, tap])


def test_relative_change_weighs_each_layer_by_its_own_size():
    original = [torch.full((2, 3), 2.0), torch.full((2, 3, 4, 4), 10.0)]
    moved = [torch.full((2, 3), 3.0).bfloat16(), torch.full((2, 3, 4, 4), 0.0)]
    assert relative_change(moved, original, decay=0.5).item() == pytest.approx(1 / 4 + 0.5)
