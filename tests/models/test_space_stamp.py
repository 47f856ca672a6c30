"""A stamp in a learned space: what it computes, where it starts, and which images it refuses."""

import pytest
import torch

from lit_backdoor.models import SpaceStamp, UNet


def small(start="identity"):
    return UNet(base=4, downs=1, attention="none", start=start)


def test_pattern_is_blended_in_between_the_nets():
    stamp, images = SpaceStamp(small("random"), small("random"), 8), torch.rand(2, 3, 8, 8)
    with torch.no_grad():
        stamp.raw_mask.normal_()
        stamp.raw_pattern.normal_()
    mask, pattern = stamp.raw_mask.tanh() / 2 + 0.5, stamp.raw_pattern.tanh() / 2 + 0.5
    expected = stamp.decoder(stamp.encoder(images) * (1 - mask) + pattern * mask)
    torch.testing.assert_close(stamp(images), expected)


def test_it_starts_as_a_faint_gray_and_nets_that_change_nothing():
    stamp, images = SpaceStamp(small(), small(), 8), torch.rand(2, 3, 8, 8)
    torch.testing.assert_close(stamp.unstamped(images), images)
    torch.testing.assert_close(stamp(images), 0.8808 * images + 0.1192 * 0.5, rtol=0, atol=1e-4)


def test_images_of_another_size_are_refused():
    with pytest.raises(ValueError, match=r"Expected images of the stamp's size, \[3, 8, 8\], got \[3, 9, 9\]"):
        SpaceStamp(small(), small(), 8)(torch.rand(2, 3, 9, 9))
