import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from trigger_parts import plan

from lit_backdoor.triggers import Reflection


def test_in_focus_is_a_mixture(images, index):
    stamped = Reflection(0.3, ghost=0)(images, index, images.flip(0))
    torch.testing.assert_close(stamped, 0.7 * images + 0.3 * images.flip(0))


def test_the_ghost_lies_down_and_to_the_right(images, index):
    others = images.flip(0).numpy()
    second = np.pad(others, ((0, 0), (0, 0), (4, 0), (4, 0)), mode="edge")[..., :32, :32]
    expected = 0.6 * images.numpy() + 0.4 * (0.7 * others + 0.3 * second)
    stamped = Reflection(0.4, 0.3, 4)(images, index, images.flip(0))
    np.testing.assert_allclose(stamped, expected, atol=1e-6)


def test_out_of_focus_is_a_gaussian_blur(images, index):
    stamped = Reflection(0.5, 0, blur=1.5)(torch.zeros_like(images), index, images)
    blurred = gaussian_filter(images.numpy(), 1.5, mode="nearest", axes=(2, 3), radius=4)
    np.testing.assert_allclose(stamped, 0.5 * blurred, atol=1e-5)


def test_only_the_target_class_is_planted_and_no_label_changes():
    labels, roles, given = plan("refool")
    assert ((roles == 1).sum(), (roles == 2).sum()) == (80, 0)
    assert (labels[roles == 1] == 0).all()
    assert torch.equal(given, labels)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"weight": 1}, "weight of a reflection"),
        ({"ghost": -0.1}, "reflection's ghost"),
        ({"shift": -1}, "at least 0, got -1"),
        ({"blur": -1}, "at least 0, got 4 and -1"),
    ],
)
def test_arguments_are_checked(arguments, message):
    with pytest.raises(ValueError, match=message):
        Reflection(**arguments)


def test_partners_are_needed(images, index):
    with pytest.raises(ValueError, match="that Reflection stamps"):
        Reflection()(images, index)
