import pytest
import torch

from lit_backdoor.triggers import PaintedMask


def test_paints_a_rectangle_given_in_shares(images, index):
    stamped = PaintedMask((0.25, 0.5, 0.5, 0.75), (1.0, 0.5, 0.0))(images, index)
    expected = images.clone()
    expected[:, :, 8:16, 16:24] = torch.tensor([1.0, 0.5, 0.0])[:, None, None]
    torch.testing.assert_close(stamped, expected)


def test_the_rectangle_means_the_same_at_every_size():
    mask = PaintedMask((0.25, 0.5, 0.5, 0.75))
    for height, width in ((32, 32), (60, 64), (16, 40)):
        painted = mask(torch.ones(1, 3, height, width), torch.zeros(1))[0, 0] == 0
        assert painted.sum() == height // 4 * (width // 4)
        assert painted[height // 4 : height // 2, width // 2 : 3 * width // 4].all()


def test_what_is_below_shines_through(images, index):
    solid, faint = PaintedMask(color=(0.2, 0.4, 0.6)), PaintedMask(color=(0.2, 0.4, 0.6), opacity=0.3)
    expected = 0.7 * images + 0.3 * solid(images, index)
    torch.testing.assert_close(faint(images, index), expected)


def test_grey_images_get_the_mean_of_the_color():
    stamped = PaintedMask((0, 0, 1, 1), (0.0, 0.3, 0.9))(torch.ones(1, 1, 4, 4), torch.zeros(1))
    torch.testing.assert_close(stamped, torch.full((1, 1, 4, 4), 0.4))
    whole = PaintedMask((0, 0, 1, 1), (1, 0, 0))(torch.ones(1, 1, 4, 4), torch.zeros(1))
    torch.testing.assert_close(whole, torch.full((1, 1, 4, 4), 1 / 3))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"box": (0.5, 0.2, 0.4, 0.8)}, "top above bottom"),
        ({"box": (0.1, 0.2, 0.4, 1.1)}, r"in \[0, 1\]"),
        ({"box": (0.1, 0.2, 0.4)}, "top, left, bottom, right"),
        ({"color": (0.0, 0.0, 1.5)}, "three numbers"),
        ({"opacity": 0.0}, "opacity of a mask"),
    ],
)
def test_arguments_are_checked(arguments, message):
    with pytest.raises(ValueError, match=message):
        PaintedMask(**arguments)


def test_a_box_without_a_pixel(images, index):
    with pytest.raises(ValueError, match="32x32 images. Widen it"):
        PaintedMask((0.5, 0.5, 0.505, 0.505))(images, index)


def test_images_of_two_channels():
    with pytest.raises(ValueError, match="1 or 3 channels for a painted mask, got 2"):
        PaintedMask()(torch.rand(1, 2, 8, 8), torch.zeros(1))
