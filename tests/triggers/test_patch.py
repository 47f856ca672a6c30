import numpy as np
import pytest
import torch
from PIL import Image

from lit_backdoor.triggers import Patch


def region(stamped, images):
    """Rows and columns that changed."""
    changed = (stamped != images).any(0).any(0)
    rows, columns = changed.any(1).nonzero().flatten(), changed.any(0).nonzero().flatten()
    return (rows.min().item(), rows.max().item() + 1), (columns.min().item(), columns.max().item() + 1)


def test_replaces_by_the_mask_formula(images, index):
    mask = np.zeros((1, 1, 32, 32), dtype=np.float32)
    mask[..., 6:11, 6:11] = 1
    expected = (1 - mask) * images.numpy() + mask * 1.0
    np.testing.assert_array_equal(Patch(5, (6, 6))(images, index).numpy(), expected)


@pytest.mark.parametrize(
    ("place", "rows", "columns"),
    [
        ((0, 0), (0, 3), (0, 4)),
        ((6, 7), (6, 9), (7, 11)),
        ((-3, -4), (29, 32), (28, 32)),
        ((-5, 2), (27, 30), (2, 6)),
        ("top_left", (0, 3), (0, 4)),
        ("top_right", (0, 3), (28, 32)),
        ("bottom_left", (29, 32), (0, 4)),
        ("bottom_right", (29, 32), (28, 32)),
        ("center", (14, 17), (14, 18)),
    ],
)
def test_places(images, index, place, rows, columns):
    assert region(Patch((3, 4), place)(images, index), images) == (rows, columns)


def test_color(images, index):
    stamped = Patch(2, "top_left", (1.0, 0.5, 0.0))(images, index)
    assert torch.equal(stamped[0, :, 1, 1], torch.tensor([1.0, 0.5, 0.0]))
    gray = Patch(2, "top_left", (1.0, 0.5, 0.0))(images[:, :1], index)
    assert gray[0, 0, 0, 0] == 0.5


def test_color_as_a_list(images, index):
    assert torch.equal(Patch(2, [0, 0], [1, 0, 0])(images, index)[0, :, 0, 0], torch.tensor([1.0, 0, 0]))


def test_checkerboard_is_white_first(images, index):
    stamped = Patch(3, (0, 0), "checkerboard")(images, index)
    expected = torch.tensor([[1.0, 0, 1], [0, 1, 0], [1, 0, 1]]).expand(3, 3, 3)
    assert torch.equal(stamped[2, :, :3, :3], expected)


def test_noise_depends_on_the_seed_alone(images, index):
    one, same, other = (Patch(2, pattern="noise", seed=seed)(images, index) for seed in (0, 0, 1))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert torch.equal(one[0, :, -2:, -2:], one[5, :, -2:, -2:])


def test_image_file(images, index, tmp_path):
    picture = np.random.default_rng(0).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    path = tmp_path / "flower.png"
    Image.fromarray(picture).save(path)
    stamped = Patch((4, 5), (1, 2), str(path))(images, index)
    np.testing.assert_allclose(stamped[0, :, 1:5, 2:7].permute(1, 2, 0).numpy(), picture / 255, atol=1e-6)
    assert Patch(3, pattern=str(path))(images[:, :1], index).shape == (6, 1, 32, 32)


@pytest.mark.parametrize("place", [(30, 0), (0, 28), (-2, 0), (-33, 0), (32, 0)])
def test_a_patch_that_does_not_fit_says_sizes(images, index, place):
    with pytest.raises(ValueError, match=r"5x5 patch at .* on 32x32 images"):
        Patch(5, place)(images, index)


def test_a_patch_larger_than_the_images(images, index):
    with pytest.raises(ValueError, match=r"33x33 patch at bottom_right on 32x32"):
        Patch(33)(images, index)


def test_unknown_names():
    with pytest.raises(ValueError, match="Did you mean 'bottom_right'"):
        Patch(3, "bottom_rigth")
    with pytest.raises(ValueError, match="Did you mean 'checkerboard'"):
        Patch(3, pattern="checkboard")


@pytest.mark.parametrize("pattern", [(1.0, 2.0, 0.0), (1.0, 0.0)])
def test_bad_color(pattern):
    with pytest.raises(ValueError, match="three numbers in"):
        Patch(3, pattern=pattern)


def test_bad_size():
    with pytest.raises(ValueError, match="at least one pixel"):
        Patch(0)


def test_missing_and_broken_files(images, index, tmp_path):
    with pytest.raises(ValueError, match="does not exist"):
        Patch(3, pattern=str(tmp_path / "none.png"))(images, index)
    (tmp_path / "broken.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"Expected an image file|broken.png': not a readable image \(no known format"):
        Patch(3, pattern=str(tmp_path / "broken.png"))(images, index)
    with pytest.raises(ValueError, match="1 or 3 channels"):
        Patch(3, pattern=str(tmp_path / "broken.png"))(torch.rand(1, 4, 8, 8), index[:1])
