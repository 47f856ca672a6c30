"""Shared adversarial examples."""

import math

import pytest
import torch
from scipy.spatial.distance import jensenshannon

from lit_backdoor.functional.shared_examples import js_divergence, sharing_objective, unsharing_loss


def test_divergence_agrees_with_scipy():
    torch.manual_seed(0)
    one, two = torch.randn(5, 4), torch.randn(5, 4)
    expected = [jensenshannon(p, q) ** 2 for p, q in zip(one.softmax(1), two.softmax(1), strict=True)]
    assert js_divergence(one, two).tolist() == pytest.approx(expected, rel=1e-4)


def test_divergence_does_not_count_for_examples_that_are_shared():
    labels = torch.tensor([0, 1])
    both = torch.tensor([[0.0, 3.0, 0.0], [0.0, 3.0, 0.0]])  # the first is wrong in both nets, the second right
    other = torch.tensor([[0.0, 1.0, 0.0], [0.0, 1.0, 0.0]])
    value = float(sharing_objective(both, other, labels, error_weight=0.0))
    assert value == pytest.approx(-float(js_divergence(both, other)[1]) / 2)


def test_loss_is_the_probability_left_to_the_class_that_the_reference_names():
    sure = 10 * torch.eye(4)
    labels = torch.tensor([0, 0, 0, 0])
    changed = sure[[2, 0, 3, 1]]  # named right in the second row
    clean = sure[[0, 0, 3, 0]]  # the third was wrong before
    logits = torch.randn(4, 4, generator=torch.Generator().manual_seed(0))
    p = logits.softmax(1)
    expected = -(math.log(1 - p[0, 2]) + math.log(1 - p[3, 1])) / 4
    assert float(unsharing_loss(logits, changed, clean, labels)) == pytest.approx(expected, rel=1e-5)


def test_gradient_is_finite_where_a_net_is_sure():
    logits = (200 * torch.eye(4)).requires_grad_()
    unsharing_loss(logits, 200 * torch.eye(4), torch.eye(4).roll(1, 0), torch.tensor([1, 2, 3, 0])).backward()
    assert logits.grad.isfinite().all()
    assert logits.grad.diagonal().min() > 0
