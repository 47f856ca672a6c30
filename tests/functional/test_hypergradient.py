"""Hypergradients."""

import pytest
import torch

from lit_backdoor.functional.hypergradient import implicit_surrogate


def quadratic():
    """An inner problem whose solution is known: delta = A^-1 B theta."""
    torch.manual_seed(0)
    root = torch.randn(3, 3, dtype=torch.float64)
    a, b, c = root @ root.T + torch.eye(3), torch.randn(3, 2, dtype=torch.float64), torch.randn(3, dtype=torch.float64)
    theta = torch.randn(2, dtype=torch.float64, requires_grad=True)

    def inner(delta):
        return 0.5 * delta @ a @ delta - delta @ b @ theta

    def outer(delta):
        return (delta - c).square().sum() + theta.square().sum() * delta.sum()

    return theta, inner, outer, torch.linalg.solve(a, b), a


def test_it_is_the_gradient_through_the_solution():
    theta, inner, outer, solution, a = quadratic()
    [expected] = torch.autograd.grad(outer(solution @ theta), theta)
    step = 1 / float(torch.linalg.eigvalsh(a).max())
    loss = implicit_surrogate(inner, outer, solution @ theta, step, 400)
    [found] = torch.autograd.grad(loss, theta)
    torch.testing.assert_close(found, expected)
    assert float(loss) == pytest.approx(float(outer(solution @ theta)))


def test_without_iterations_it_is_the_gradient_at_a_fixed_solution():
    theta, inner, outer, solution, _ = quadratic()
    fixed = (solution @ theta).detach()
    [expected] = torch.autograd.grad(outer(fixed), theta)
    [found] = torch.autograd.grad(implicit_surrogate(inner, outer, fixed, 0.1, 0), theta)
    torch.testing.assert_close(found, expected)
    [whole] = torch.autograd.grad(outer(solution @ theta), theta)
    assert not torch.allclose(found, whole, rtol=0.1)
