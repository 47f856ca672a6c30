import pytest
import torch

from lit_backdoor.bundle import open_bundle, save_bundle
from lit_backdoor.models import LocalPattern, PatternedUNet, WideAndLocal

IMAGES = torch.rand(6, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def local(**options):
    torch.manual_seed(0)
    net = LocalPattern(16, **{"share": 0.06, "grid": 4, **options})
    with torch.no_grad():
        net.raw_place[0, 0, 1, 2] = 5 / net.gain
        net.raw_pattern[:] = 0.2
    return net


def test_pattern_stands_at_one_place():
    torch.manual_seed(0)
    net = PatternedUNet(16, base=4, downs=2)
    with torch.no_grad():
        net.pattern.zero_()
        net.pattern[:, 2, 3] = 1.0
        net.last.weight.zero_()
    change = (net(IMAGES) - IMAGES).abs().sum((0, 1)) > 1e-6
    assert change.nonzero().tolist() == [[2, 3]]


def test_local_pattern_covers_its_share_at_one_place():
    net = local()
    mask, pattern = net.parts()
    assert mask.mean().item() == pytest.approx(0.06, abs=1e-4)
    found = net(IMAGES)
    torch.testing.assert_close(found, IMAGES + mask * (pattern - IMAGES))
    change = (found - IMAGES).abs().mean((0, 1))
    assert change[3:9, 7:13].sum() > 0.95 * change.sum()


def test_local_pattern_varies_in_place_and_color():
    net, images = local(), torch.zeros(400, 3, 16, 16)
    with torch.no_grad():
        net.raw_pattern[:] = torch.randn(net.raw_pattern.shape, generator=torch.Generator().manual_seed(2))
    torch.manual_seed(1)
    varied = net.varied(images)
    still = net.parts()[0][0, 0] > 0.5
    here = [bool(((image.amax(0) > 0.02) & still).sum() == still.sum()) for image in varied]
    assert 150 < sum(here) < 290
    solid = varied.flatten(2).amax(2) / varied.flatten(2).sum(2)  # of one color: the mask's own shape in each channel
    same = sum(torch.allclose(one, one[:1].expand(3), rtol=1e-3) for one in solid)
    assert 140 < same < 260


def test_local_pattern_learns_its_place():
    torch.manual_seed(0)
    net = LocalPattern(16, share=0.06, grid=4)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    for _ in range(60):
        loss = -(net(IMAGES) - IMAGES)[:, :, 10:14, 2:6].abs().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert net.parts()[0][0, 0, 9:15, 1:7].sum() > 0.8 * net.parts()[0].sum()


def test_bundle_keeps_it(tmp_path):
    net = local()
    save_bundle(tmp_path, kind="generator", module=net)
    assert torch.equal(open_bundle(tmp_path).build()(IMAGES), net(IMAGES))


def test_wide_and_local_take_turns():
    torch.manual_seed(0)
    net = WideAndLocal(16, share=0.06)
    found = net(IMAGES)
    torch.testing.assert_close(found[::2], net.wide(IMAGES[::2]))
    torch.testing.assert_close(found[1::2], net.local(IMAGES[1::2]))
    torch.testing.assert_close(net(IMAGES[:1]), net.wide(IMAGES[:1]))


def test_share_outside_its_range_is_refused():
    with pytest.raises(ValueError, match="share of pixels"):
        LocalPattern(share=1.5)


def test_varied_stamps_are_the_stamp_rolled_image_by_image():
    torch.manual_seed(0)
    net, images = LocalPattern(16), torch.rand(9, 3, 16, 16)
    torch.manual_seed(1)
    varied = net.varied(images)
    torch.manual_seed(1)
    shifts = (torch.randint(16, (9, 2)) * torch.randint(2, (9, 1))).tolist()
    plain, color = torch.rand(9, 1, 1, 1) < 0.5, torch.rand(9, 3, 1, 1)
    for row, shift in enumerate(shifts):
        mask, pattern = (part[0].detach().roll(shift, (1, 2)) for part in net.parts())
        pattern = color[row] if plain[row] else pattern
        assert torch.equal(varied[row], images[row] + mask * (pattern - images[row]))
