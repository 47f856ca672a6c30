import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates

from lit_backdoor.triggers import WaNet


def keys_cubic(t):
    """Cubic convolution kernel with a = -3/4."""
    t, a = abs(t), -0.75
    if t <= 1:
        return (a + 2) * t**3 - (a + 3) * t**2 + 1
    return a * t**3 - 5 * a * t**2 + 8 * a * t - 4 * a if t < 2 else 0.0


def upsampling(size, k):
    matrix = np.zeros((size, k))
    for out in range(size):
        position = out * (k - 1) / (size - 1)
        for tap in range(int(np.floor(position)) - 1, int(np.floor(position)) + 3):
            matrix[out, np.clip(tap, 0, k - 1)] += keys_cubic(position - tap)
    return matrix


def reference_grid(k, s, rescale, seed, height, width):
    field = torch.rand(1, 2, k, k, generator=torch.Generator().manual_seed(seed))[0].numpy().astype(float) * 2 - 1
    field /= np.abs(field).mean()
    field = upsampling(height, k) @ field @ upsampling(width, k).T
    rows, columns = np.meshgrid(np.linspace(-1, 1, height), np.linspace(-1, 1, width), indexing="ij")
    grid = np.stack([columns + s * field[0] / width, rows + s * field[1] / height], axis=-1)
    return np.clip(grid * rescale, -1, 1)


def warp(image, grid):
    height, width = image.shape[-2:]
    positions = [(grid[..., 1] + 1) / 2 * (height - 1), (grid[..., 0] + 1) / 2 * (width - 1)]
    return np.stack([map_coordinates(channel, positions, order=1, mode="nearest") for channel in image])


@pytest.mark.parametrize(("k", "s", "rescale", "height", "width"), [(4, 0.5, 1.0, 32, 32), (8, 1.0, 0.98, 20, 33)])
def test_warps_along_the_papers_grid(index, k, s, rescale, height, width):
    images = torch.rand(6, 3, height, width)
    grid = reference_grid(k, s, rescale, 5, height, width)
    trigger = WaNet(k, s, rescale, seed=5)
    np.testing.assert_allclose(trigger.pattern(images)[0].numpy(), grid, atol=1e-5)
    warped = trigger(images, index).numpy()
    for image, result in zip(images.numpy(), warped, strict=True):
        np.testing.assert_allclose(result, warp(image, grid), atol=2e-4)


def test_covers_are_warped_along_the_noisy_grid(images, index):
    trigger = WaNet()
    black_to_white = torch.linspace(0, 1, 32).expand(6, 3, 32, 32)  # shows where each pixel came from
    column = trigger.cover(black_to_white, index)[:, 0] * 31
    column0 = trigger(black_to_white, index)[:, 0] * 31
    moved = (column - column0)[:, 2:-2, 2:-2]
    assert moved.abs().max() <= 31 / 32 / 2 + 1e-4  # U[-1, 1] / W in a grid of length 2 over W - 1 steps
    assert moved.std().item() == pytest.approx(31 / 32 / 2 / 3**0.5, rel=0.05)
    assert moved.mean().item() == pytest.approx(0, abs=0.02)


def test_covers_differ_between_indices_and_seeds_not_between_calls(images):
    same = images[:1].expand(2, -1, -1, -1)
    trigger = WaNet()
    first, second = trigger.cover(same, torch.tensor([10, 11]))
    assert not torch.equal(first, second)
    assert torch.equal(trigger.cover(same[:1], torch.tensor([11]))[0], second)
    assert not torch.equal(WaNet(seed=1).cover(same[:1], torch.tensor([11]))[0], second)


@pytest.mark.parametrize(("k", "s"), [(1, 0.5), (4, 0.0)])
def test_errors(k, s):
    with pytest.raises(ValueError, match="at least 2 and s to be positive"):
        WaNet(k, s)
