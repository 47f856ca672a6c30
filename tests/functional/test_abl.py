import numpy as np
import pytest
import torch
from scipy.special import log_softmax

from lit_backdoor.functional.abl import flooding, local_gradient_ascent


def rows(scale):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(6, 4, generator=generator) + scale * torch.eye(4)[[0, 1, 2, 3, 0, 1]]
    target = torch.tensor([0, 1, 2, 3, 0, 1])
    losses = -log_softmax(logits.double().numpy(), axis=1)[np.arange(6), target.numpy()]
    return logits, target, losses


@pytest.mark.parametrize("scale", [0.0, 1.5, 20.0])
def test_losses_equal_reference(scale):
    logits, target, losses = rows(scale)
    mean = losses.mean()
    assert local_gradient_ascent(logits, target).item() == pytest.approx(np.sign(mean - 0.5) * mean, abs=1e-6)
    assert flooding(logits, target, 0.7).item() == pytest.approx(abs(mean - 0.7) + 0.7, abs=1e-6)


@pytest.mark.parametrize("loss", [local_gradient_ascent, flooding])
@pytest.mark.parametrize(("scale", "sign"), [(0.0, 1), (20.0, -1)])
def test_gradient_turns_around_at_the_threshold(loss, scale, sign):
    logits, target, _ = rows(scale)
    logits.requires_grad_()
    (got,) = torch.autograd.grad(loss(logits, target), logits)
    (plain,) = torch.autograd.grad(torch.nn.functional.cross_entropy(logits, target), logits)
    torch.testing.assert_close(got, sign * plain)


def test_half_precision_logits_are_lifted():
    logits, target, losses = rows(0.0)
    assert flooding(logits.bfloat16(), target).dtype == torch.float32
    assert flooding(logits.bfloat16(), target).item() == pytest.approx(losses.mean(), rel=1e-2)
