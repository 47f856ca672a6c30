"""ShrinkPad: its transformation, a trigger that it breaks and one that it does not."""

import pruning_parts as parts
import pytest
import tiny
import torch
from torch import nn
from torch.nn import functional as F

from lit_backdoor.bundle import open_bundle
from lit_backdoor.defenses.shrink_pad import ShrinkAndPad, ShrinkPad
from lit_backdoor.models import wrap_classifier


def run(suspect, datamodule=None):
    stage = ShrinkPad(suspect)
    tiny.trainer().predict(stage, datamodule=datamodule or tiny.data(), return_predictions=False)
    return stage


def test_images_are_shrunk_and_lie_at_their_place():
    images = torch.rand(40, 3, 12, 12)
    shrink = ShrinkAndPad(pixels=3)
    padded, places = shrink(images), shrink.places(images)
    assert len(places.unique()) > 5
    small = F.interpolate(images, (9, 9), mode="bilinear", antialias=True)
    for image, expected, place in zip(padded, small, places.tolist(), strict=True):
        top, left = place // 4, place % 4
        torch.testing.assert_close(image[:, top : top + 9, left : left + 9], expected)
        assert image.sum() == pytest.approx(float(expected.sum()), rel=1e-4)  # the rest is zero
    assert torch.equal(torch.cat([shrink(image[None]) for image in images]), padded)  # whatever the batches


def test_trigger_at_a_pixel_is_broken_and_one_of_color_is_not():
    """A net that sends what is white in its first pixel to class 1, and else goes by brightness."""

    class Corner(nn.Module):
        def __init__(self):
            super().__init__()
            self.sum = nn.Identity()

        def forward(self, images):
            votes = 8 * (images.mean((1, 2, 3)) - 0.4) + 100 * (images[:, :, 0, 0].mean(1) - 0.95).relu()
            return self.sum(torch.stack((-votes, votes), 1))

    net = wrap_classifier(Corner(), split="sum", num_classes=2, input_size=8, mean=(0.0,) * 3, std=(1.0,) * 3)
    dark = torch.full((20, 3, 8, 8), 0.3) + 0.01 * torch.rand(20, 3, 8, 8)
    stamped = dark.clone()
    stamped[:, :, 0, 0] = 1
    cleaned = run(net, parts.data()).result()
    assert (net(stamped).argmax(1) == 1).all()
    assert (cleaned(stamped).argmax(1) == 0).all()
    color = parts.backdoored()
    assert parts.rates(run(color, parts.data()).result(), lambda images: parts.redden(images, 0.4))[1] == 1.0


def test_bundle_gives_the_same_logits(tmp_path):
    stage = run(tiny.classifier())
    stage.export(tmp_path / "bundle")
    images = torch.rand(5, 3, 16, 16)
    torch.testing.assert_close(open_bundle(tmp_path / "bundle").build()(images), stage.result().eval()(images))


def test_nothing_of_the_attack_reaches_it():
    assert parts.equal(*parts.without_attack(lambda: ShrinkPad(tiny.classifier()), fit=False))


def test_sizes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="at least 1, got 0"):
        ShrinkAndPad(pixels=0)
    with pytest.raises(ValueError, match="more than 4 pixels a side"):
        ShrinkAndPad()(torch.rand(1, 3, 4, 4))
