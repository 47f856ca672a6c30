import numpy as np
import pytest
import torch
from PIL import Image

from lit_backdoor.triggers import Blend, Patch
from lit_backdoor.triggers.picture import read_pattern


@pytest.fixture
def images():
    return torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def stamp(trigger, images):
    return trigger(images, torch.arange(len(images)))


def saved(tmp_path, name, content):
    path = tmp_path / name
    if isinstance(content, Image.Image):
        content.save(path)
    else:
        np.save(path, content)
    return str(path)


def half(mode="L"):
    """White on the left, black on the right."""
    image = Image.new(mode, (8, 8), 0)
    image.paste(255, (0, 0, 4, 8))
    return image


def test_alpha_is_a_mask(images, tmp_path):
    picture = Image.new("RGB", (8, 8), "red")
    picture.putalpha(half())
    path, red = saved(tmp_path, "p.png", picture), torch.tensor([1.0, 0, 0]).view(3, 1, 1)
    for trigger, alpha in ((Blend(0.5, path), 0.5), (Patch(8, "top_left", path), 1.0)):
        got = stamp(trigger, images)
        assert torch.equal(got[..., 4:], images[..., 4:])
        torch.testing.assert_close(got[..., :4], (1 - alpha) * images[..., :4] + alpha * red.expand(3, 8, 4))


@pytest.mark.parametrize("kind", ["png", "npy"])
def test_mask_from_a_file(images, tmp_path, kind):
    mask = half() if kind == "png" else (np.asarray(half()) / 255).astype(np.float32)
    got = stamp(Patch(8, "top_left", "white", mask=saved(tmp_path, f"m.{kind}", mask)), images)
    assert torch.equal(got[..., 4:], images[..., 4:])
    assert (got[..., :4] == 1).all()


def test_mask_multiplies_alpha(images, tmp_path):
    picture = Image.new("RGB", (8, 8), "white")
    picture.putalpha(half())
    top = half().transpose(Image.Transpose.ROTATE_270)
    trigger = Blend(1.0, saved(tmp_path, "p.png", picture), mask=saved(tmp_path, "m.png", top))
    assert torch.equal((stamp(trigger, images) != images).all(1).nonzero()[:, 1:].amax(0), torch.tensor([3, 3]))


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 3), (3, 5, 7), (1, 5, 7), (5, 7, 1)])
def test_arrays_of_bytes_and_of_floats_say_the_same(tmp_path, shape):
    values = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    one, two = (saved(tmp_path, name, array) for name, array in (("a.npy", values), ("b.npy", values / 255.0)))
    first, second = (read_pattern(path, 3, 5, 7) for path in (one, two))
    torch.testing.assert_close(first, second)
    planes = values if shape[-1] == 7 else values.transpose(2, 0, 1)
    torch.testing.assert_close(first, torch.from_numpy(planes / 255.0).float().expand(3, 5, 7))
    assert read_pattern(two, 1, 5, 7).shape == (1, 5, 7)
    assert read_pattern(two, 3, 10, 9).shape == (3, 10, 9)


def test_array_of_four_channels_has_a_mask(tmp_path):
    values = np.zeros((4, 8, 8), np.float32)
    values[3, :, :2] = 1
    assert read_pattern(saved(tmp_path, "a.npy", values), 3, 8, 8)[3].sum() == 16


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (np.full((8, 8, 3), 255.0), "Divide by 255"),
        (np.full((8, 8, 3), np.nan), "Divide by 255"),
        (np.zeros((8, 8), np.int64), "got int64"),
        (np.zeros((2, 8, 8, 3)), r"got \[2, 8, 8, 3\]"),
        (np.array([{}], dtype=object), "not a readable .npy"),
    ],
)
def test_other_arrays_are_refused(images, tmp_path, content, message):
    with pytest.raises(ValueError, match=f"a.npy'.*{message}"):
        stamp(Blend(0.5, saved(tmp_path, "a.npy", content)), images)


def test_picture_of_sixteen_bits_is_scaled_and_of_floats_refused(images, tmp_path):
    grey = saved(tmp_path, "g.png", Image.new("I;16", (4, 4), 257 * 51))
    torch.testing.assert_close(stamp(Patch(8, "top_left", grey), images), torch.full((2, 3, 8, 8), 0.2))
    with pytest.raises(ValueError, match="floats"):
        stamp(Blend(0.5, saved(tmp_path, "f.tiff", Image.new("F", (4, 4), 0.5))), images)
