import pytest
import torch

from lit_backdoor.triggers import DynamicPatch


@torch.no_grad()
def test_one_cell_of_the_grid_is_replaced(images, index):
    stamped = DynamicPatch(5)(images, index)
    for before, after in zip(images, stamped, strict=True):
        rows, columns = (before != after).any(0).nonzero(as_tuple=True)
        top, left = rows.min() // 5 * 5, columns.min() // 5 * 5
        assert max(rows.max() - top, columns.max() - left) < 5
        assert len(rows) == 25


@torch.no_grad()
def test_pattern_is_the_mean_of_what_the_net_makes_and_noise(images, index):
    trigger = DynamicPatch(5)
    patterns = trigger.patterns(index)
    with torch.no_grad():
        trigger.generator[-2].weight.zero_()
        trigger.generator[-2].bias.fill_(100.0)  # the net now makes ones
    noise = 2 * trigger.patterns(index) - 1
    assert noise.min() >= 0
    assert noise.max() < 1
    assert noise.mean().item() == pytest.approx(0.5, abs=0.05)
    made = 2 * patterns - noise
    assert ((made > 0) & (made < 1)).all()


def test_rows_differ_in_pattern_and_place(images):
    trigger, index = DynamicPatch(5), torch.arange(400)
    patterns = trigger.patterns(index)
    assert len(torch.unique(patterns.flatten(1), dim=0)) == 400
    stamped = trigger(torch.zeros(400, 3, 32, 32), index)
    places = torch.unique((stamped != 0).any(1).flatten(1).float().argmax(1))
    assert len(places) == 36


def test_gradients_reach_the_net(images, index):
    trigger = DynamicPatch(5)
    trigger(images, index).sum().backward()
    assert all(weight.grad.abs().sum() > 0 for weight in trigger.generator.parameters())


def test_errors(index):
    with pytest.raises(ValueError, match="at least 1"):
        DynamicPatch(0)
    with pytest.raises(ValueError, match="at least 5x5"):
        DynamicPatch(5)(torch.rand(6, 3, 4, 9), index)
