import pytest
import torch
from torch.nn import functional as F

from lit_backdoor.bundle import open_bundle, save_bundle
from lit_backdoor.models import WarpField
from lit_backdoor.triggers import GeneratorTrigger, WaNet

IMAGES = torch.rand(3, 3, 16, 24, generator=torch.Generator().manual_seed(0))


def shifted(x, y, reach=0.5):
    """A field that is the same everywhere, in shares of the sides."""
    net = WarpField(reach=reach)
    with torch.no_grad():
        net.raw[0, 0], net.raw[0, 1] = (torch.tensor(v / reach).atanh() / net.gain for v in (x, y))
    return net


def test_constant_field_is_a_translation():
    """Against slicing: pixels come from a whole number of steps further on, and the border is repeated."""
    width, height = 24, 16
    moved = shifted(2 / (width - 1), 3 / (height - 1))(IMAGES)
    expected = F.pad(IMAGES, (0, 2, 0, 3), mode="replicate")[:, :, 3:, 2:]
    torch.testing.assert_close(moved, expected, atol=1e-5, rtol=0)


def test_no_shift_is_the_identity():
    torch.testing.assert_close(shifted(0.0, 0.0)(IMAGES), IMAGES, atol=1e-5, rtol=0)


def test_shifts_stay_within_reach():
    torch.manual_seed(0)
    net = WarpField(reach=0.1, gain=5.0)
    with torch.no_grad():
        net.raw.mul_(100)
    field = net.field(16, 24).abs()
    assert field.shape == (1, 16, 24, 2)
    assert 0.09 < field.max() <= 0.1


def test_learns_the_warp_of_wanet():
    torch.manual_seed(0)
    smooth = F.interpolate(torch.rand(8, 3, 8, 8), (32, 32), mode="bicubic").clamp(0, 1)
    warped = WaNet(s=1.0, seed=3)(smooth, torch.arange(8))
    net = WarpField()
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    for _ in range(150):
        loss = F.mse_loss(net(smooth), warped)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.1 * F.mse_loss(smooth, warped)


def test_bundle_of_its_trigger_gives_the_same_images(tmp_path):
    torch.manual_seed(1)
    trigger = GeneratorTrigger(WarpField(grid=5, reach=0.2))
    save_bundle(tmp_path / "b", kind="trigger", module=trigger)
    again = open_bundle(tmp_path / "b", "trigger").build()
    assert torch.equal(again(IMAGES), trigger(IMAGES))
    assert not torch.equal(again(IMAGES), IMAGES)


def test_half_precision_does_not_move_pixels():
    net = WarpField()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(net(IMAGES), net(IMAGES), rtol=0, atol=0)
        found = net(IMAGES)
    torch.testing.assert_close(found, net(IMAGES), atol=1e-5, rtol=0)


@pytest.mark.parametrize("options", [{"grid": 1}, {"reach": 0.0}])
def test_wrong_options(options):
    with pytest.raises(ValueError, match="Expected a grid of at least 2 points and a positive reach"):
        WarpField(**options)
