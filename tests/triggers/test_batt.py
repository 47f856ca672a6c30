import numpy as np
import pytest
import torch
from kornia.geometry.transform import rotate
from PIL import Image

from lit_backdoor.triggers import Rotation


def smooth(height, width):
    rows, columns = np.meshgrid(np.linspace(0, 3, height), np.linspace(0, 4, width), indexing="ij")
    return ((np.sin(rows) * np.cos(columns) + 1) / 2 * 255).astype(np.uint8)


@pytest.mark.parametrize("degrees", [16.0, -30.0, 90.0])
@pytest.mark.parametrize("shape", [(32, 32), (24, 48)])
def test_agrees_with_pil(degrees, shape):
    picture = smooth(*shape)
    expected = np.asarray(Image.fromarray(picture).rotate(degrees, Image.Resampling.BILINEAR), dtype=float) / 255
    image = torch.from_numpy(picture)[None, None].float() / 255
    rotated = Rotation(degrees)(image, torch.zeros(1))[0, 0].numpy()
    off = np.abs(rotated - expected)
    assert np.median(off) < 0.005
    assert (off > 0.02).mean() < 0.1  # the rim, where PIL does not fade into black


def test_nearest_agrees_with_pils_default():
    picture = smooth(32, 32)
    expected = np.asarray(Image.fromarray(picture).rotate(16), dtype=float) / 255
    image = torch.from_numpy(picture)[None, None].float() / 255
    rotated = Rotation(16, interpolation="nearest")(image, torch.zeros(1))[0, 0].numpy()
    assert (np.abs(rotated - expected) > 1e-6).mean() < 0.02


def test_agrees_with_kornia(images, index):
    expected = rotate(images, torch.full((6,), 16.0), align_corners=True)
    off = (Rotation()(images, index) - expected).abs()[..., 4:-4, 4:-4]
    assert off.max() < 1e-3


def test_corners_are_black(index):
    stamped = Rotation()(torch.ones(1, 3, 32, 32), index[:1])
    assert stamped[0, :, 0, 0].max() == 0
    assert stamped[0, :, 16, 16].min() == pytest.approx(1)


def test_benign_rows_are_rotated_a_little_each_by_its_own_angle(images):
    trigger = Rotation(16, 10)
    generator = torch.Generator().manual_seed(0)
    turned = trigger.benign(images, generator)
    angles = (2 * torch.rand(6, generator=torch.Generator().manual_seed(0)) - 1) * 10
    for image, result, angle in zip(images, turned, angles, strict=True):
        expected = Rotation(angle.item(), 0)(image[None], torch.zeros(1))[0]
        torch.testing.assert_close(result, expected, atol=1e-4, rtol=0)
    again = trigger.benign(images, generator)
    assert not torch.equal(again, turned)
    assert torch.equal(trigger.benign(images, torch.Generator().manual_seed(0)), turned)


def test_benign_rotation_can_be_turned_off(images):
    trigger = Rotation(16, 0)
    assert Rotation().alters_benign
    assert not trigger.alters_benign
    assert torch.equal(trigger.benign(images, torch.Generator()), images)


@pytest.mark.parametrize("benign", [-1.0, 16.0])
def test_errors(benign):
    with pytest.raises(ValueError, match="below the trigger's 16 degrees"):
        Rotation(16, benign)
