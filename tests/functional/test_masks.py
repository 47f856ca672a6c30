import pytest
import torch

from lit_backdoor.functional.masks import area_mask


@pytest.mark.parametrize("share", [0.01, 0.3, 0.9])
def test_mask_has_the_area(share):
    raw = 5 * torch.randn(1, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    mask = area_mask(raw, share)
    assert mask.mean().item() == pytest.approx(share, abs=1e-4)
    assert (mask.flatten()[raw.flatten().argsort()].diff() >= 0).all()


def test_gradient_is_that_of_the_mask_whose_threshold_moves():
    raw = torch.randn(7, generator=torch.Generator().manual_seed(1)).requires_grad_(True)
    weights = torch.randn(7, generator=torch.Generator().manual_seed(2))
    (area_mask(raw, 0.3) * weights).sum().backward()
    step = 1e-2
    for i in range(7):
        up, down = raw.detach().clone(), raw.detach().clone()
        up[i], down[i] = up[i] + step, down[i] - step
        slope = ((area_mask(up, 0.3) - area_mask(down, 0.3)) * weights).sum() / (2 * step)
        assert raw.grad[i].item() == pytest.approx(slope.item(), abs=2e-3)
