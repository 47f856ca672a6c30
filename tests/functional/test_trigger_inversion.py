import numpy as np
import torch
from torch.nn import functional as F

from lit_backdoor.functional.trigger_inversion import (
    add_change,
    changed_pixels,
    pixel_penalty,
    signed_change,
    stamp_mask,
    toward_classes,
)

DRAW = torch.Generator().manual_seed(0)
IMAGES = torch.rand(3, 2, 4, 5, generator=DRAW)


def test_mask_stamps_every_image_with_every_trigger():
    mask, pattern = torch.rand(2, 1, 4, 5, generator=DRAW), torch.rand(2, 2, 4, 5, generator=DRAW)
    stamped = stamp_mask(IMAGES, mask, pattern)
    x, m, p = IMAGES.numpy(), mask.numpy(), pattern.numpy()
    for k in range(2):
        for b in range(3):
            np.testing.assert_allclose(stamped[k, b], (1 - m[k]) * x[b] + m[k] * p[k], rtol=1e-6)


def test_change_is_added_and_clipped():
    positive, negative = torch.randn(2, 2, 2, 4, 5, generator=DRAW)
    change = np.clip(positive.numpy(), 0, 1) - np.clip(negative.numpy(), 0, 1)
    np.testing.assert_allclose(signed_change(positive, negative), change)
    stamped = add_change(IMAGES, torch.from_numpy(change))
    expected = np.clip(IMAGES.numpy()[None] + change[:, None], 0, 1)
    np.testing.assert_allclose(stamped, expected, rtol=1e-6)


def test_penalty_is_the_largest_channel_of_each_pixel():
    raw = 5 * torch.randn(2, 3, 4, 5, generator=DRAW)
    expected = (np.tanh(raw.numpy() / 10) / 2 + 0.5).max(axis=1).sum(axis=(1, 2))
    np.testing.assert_allclose(pixel_penalty(raw), expected, rtol=1e-5)


def test_pixels_count_once_whatever_the_channel_and_sign():
    change = torch.zeros(1, 3, 4, 5)
    change[0, :, 0, 0] = 0.5
    change[0, 1, 2, 3] = -1 / 255
    change[0, 2, 3, 3] = 0.9 / 255
    assert changed_pixels(change).tolist() == [2.0]


def test_outcomes_of_the_rows_that_count():
    logits = torch.randn(3, 6, 4, generator=DRAW)
    classes, counts = torch.tensor([0, 2, 3]), torch.rand(3, 6, generator=DRAW) < 0.6
    counts[2] = False
    found = toward_classes(logits, classes, counts)
    for k in range(2):
        rows = logits[k][counts[k]]
        wanted = torch.full((len(rows),), int(classes[k]))
        torch.testing.assert_close(found.loss[k], F.cross_entropy(rows, wanted))
        assert found.hits[k] == (rows.argmax(1) == classes[k]).sum()
    assert found.rows.tolist() == counts.sum(1).tolist()
    assert found.loss[2] == found.hits[2] == 0


def test_half_precision_is_computed_in_full():
    half = IMAGES.bfloat16()
    assert stamp_mask(half, torch.rand(1, 1, 4, 5), torch.rand(1, 2, 4, 5)).dtype == torch.float32
    logits = torch.tensor([[[40.0, 0.0]]]).bfloat16()
    loss = toward_classes(logits, torch.tensor([0]), torch.ones(1, 1, dtype=torch.bool)).loss
    assert loss.dtype == torch.float32
