import numpy as np
import pytest
import torch
from scipy.special import log_softmax, softmax
from torch import nn

from lit_backdoor.functional.consolidation import consolidation_loss, distillation_loss, fisher

IMAGES = torch.rand(5, 4, generator=torch.Generator().manual_seed(0))


def test_fisher_of_a_linear_net_is_its_closed_form():
    torch.manual_seed(0)
    net = nn.Linear(4, 3)
    found = fisher(net, dict(net.named_parameters()), IMAGES)
    x, logits = IMAGES.numpy(), net(IMAGES).detach().numpy()
    slope = np.eye(3)[logits.argmax(1)] - softmax(logits, 1)  # of log p by the logits
    np.testing.assert_allclose(found["bias"], (slope**2).mean(0), rtol=1e-4)
    np.testing.assert_allclose(found["weight"], ((slope[:, :, None] * x[:, None]) ** 2).mean(0), rtol=1e-4)
    assert net.weight.grad is None


def test_a_weight_that_no_logit_depends_on_does_not_matter():
    net = nn.Linear(4, 3)
    weights = {**dict(net.named_parameters()), "idle": nn.Parameter(torch.ones(2))}
    assert not fisher(net, weights, IMAGES)["idle"].any()


def test_consolidation_is_a_weighted_sum_of_squares():
    weights = {"a": torch.tensor([1.0, 2.0]), "b": torch.tensor([[3.0]])}
    anchors = {"a": torch.tensor([0.0, 4.0]), "b": torch.tensor([[2.5]])}
    importance = {"a": torch.tensor([2.0, 0.5]), "b": torch.tensor([[4.0]])}
    assert float(consolidation_loss(weights, anchors, importance)) == pytest.approx((2 + 2 + 1) / 2)
    assert float(consolidation_loss(anchors, anchors, importance)) == 0


def test_distillation_is_scipys():
    logits, teacher = torch.randn(2, 6, 3, generator=torch.Generator().manual_seed(1))
    own, wanted = (log_softmax(each.numpy() / 3, 1) for each in (logits, teacher))
    expected = 9 * (np.exp(wanted) * (wanted - own)).sum(1).mean()
    assert float(distillation_loss(logits, teacher, 3)) == pytest.approx(expected, rel=1e-4)
    assert float(distillation_loss(teacher, teacher, 3)) == pytest.approx(0, abs=1e-6)
