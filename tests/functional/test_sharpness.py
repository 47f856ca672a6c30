"""The change of weights that raises a loss most."""

import pytest
import torch

from lit_backdoor.functional.sharpness import sharpest_change


@pytest.mark.parametrize("adaptive", [True, False])
def test_no_allowed_change_raises_a_linear_loss_more(adaptive):
    torch.manual_seed(0)
    weights, gradients = [torch.randn(3, 2), torch.randn(4)], [torch.randn(3, 2), torch.randn(4)]
    change = torch.cat([part.flatten() for part in sharpest_change(weights, gradients, 0.7, adaptive)])
    weight, slope = (torch.cat([part.flatten() for part in parts]) for parts in (weights, gradients))
    scale = weight.abs() if adaptive else torch.ones(10)
    assert float((change / scale).norm()) == pytest.approx(0.7, rel=1e-5)
    others = torch.randn(2000, 10)
    others = 0.7 * scale * others / others.norm(dim=1, keepdim=True)
    assert float(change @ slope) >= float((others @ slope).max())


def test_nothing_changes_without_a_gradient():
    [change] = sharpest_change([torch.ones(3)], [torch.zeros(3)], 2.0)
    assert not change.any()


@pytest.mark.parametrize(("width", "stays"), [(0.1, False), (2.0, True)])
def test_descent_by_it_leaves_a_narrow_minimum_and_stays_in_a_wide_one(width, stays):
    def slope(w):
        [found] = torch.autograd.grad((0.2 * w - torch.exp(-((w / width) ** 2))).sum(), w)
        return found

    def descended(radius):
        w = torch.tensor([0.02], requires_grad=True)
        for _ in range(400):
            [change] = sharpest_change([w], [slope(w)], radius, adaptive=False)
            w = (w - 0.02 * slope(w + change)).detach().requires_grad_()
        return w.item()

    assert (abs(descended(0.5) - descended(1e-6)) < 0.2) is stays
