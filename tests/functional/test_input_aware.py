import math

import pytest
import torch

from lit_backdoor.functional.input_aware import diversity_loss, excess, sharpened


def test_diversity_loss_is_the_ratio_of_distances():
    draw = torch.Generator().manual_seed(0)
    images, others = torch.rand(2, 4, 3, 5, 6, generator=draw)
    patterns, theirs = torch.rand(2, 4, 1, 5, 6, generator=draw)
    ratios = []
    for row in range(4):
        above = math.sqrt(sum((a - b) ** 2 for a, b in zip(images[row].flatten().tolist(),
                                                           others[row].flatten().tolist(), strict=True)) / 90)  # fmt: skip
        below = math.sqrt(sum((a - b) ** 2 for a, b in zip(patterns[row].flatten().tolist(),
                                                           theirs[row].flatten().tolist(), strict=True)) / 30)  # fmt: skip
        ratios.append(above / (below + 1e-7))
    assert diversity_loss(images, others, patterns, theirs).item() == pytest.approx(sum(ratios) / 4, rel=1e-5)


def test_equal_rows_have_finite_gradients():
    patterns = torch.rand(2, 3, 4, 4, requires_grad=True)
    images = torch.rand(2, 3, 4, 4)
    diversity_loss(images, images, patterns, patterns.detach().clone()).backward()
    assert patterns.grad.isfinite().all()


def test_what_is_above_the_density_counts():
    masks = torch.tensor([0.0, 0.1, 0.5, 1.0])
    assert excess(masks, 0.1).item() == pytest.approx((0.4 + 0.9) / 4)


def test_sharpened_masks_are_close_to_0_or_1():
    found = sharpened(torch.tensor([0.0, 0.3, 0.5, 0.7, 1.0]))
    expected = [1 / (1 + math.exp(-2 * (20 * m - 10))) for m in (0.0, 0.3, 0.5, 0.7, 1.0)]
    torch.testing.assert_close(found, torch.tensor(expected), atol=1e-6, rtol=0)
