import pytest
import torch

from lit_backdoor.triggers import Blend, Patch, WaNet


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.zeros(2, 3, 8, 8, dtype=torch.uint8), r"float images in \[0, 1\], got torch.uint8. Stamp images.float\(\) / 255"),
        (torch.zeros(2, 3, 8, 8, dtype=torch.int64), "got torch.int64"),
        (torch.rand(3, 8, 8), r"\[B, C, H, W\], got \[3, 8, 8\]. Stamp image\[None\]"),
        (torch.rand(8, 8), r"got \[8, 8\]"),
        (torch.rand(2, 3, 8, 8) * 255, "Stamp images / 255"),
        (torch.rand(2, 3, 8, 8) * 4 - 2, "before they are normalized"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("trigger", [Patch(), Blend(), WaNet()])
@pytest.mark.parametrize("form", ["__call__", "poison"])
def test_images_of_another_kind_are_refused(images, message, trigger, form):
    with pytest.raises(ValueError, match=message):
        getattr(trigger, form)(images, torch.arange(len(images)))


def test_rounding_and_nan_pass():
    images = torch.full((1, 3, 8, 8), 1 + 1e-6)
    assert Patch()(images, torch.tensor([0])).shape == images.shape
    images[0, 0, 0, 0] = torch.nan
    assert Patch()(images, torch.tensor([0])).isnan().sum() == 1


def test_values_are_checked_in_every_call_on_the_cpu():
    trigger, index = Patch(), torch.arange(2)
    trigger(torch.rand(2, 3, 8, 8), index)
    with pytest.raises(ValueError, match="Stamp images / 255"):
        trigger(torch.rand(2, 3, 8, 8) * 255, index)
