"""The gradient of an outer loss whose argument solves an inner problem, by implicit differentiation."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["implicit_surrogate"]


def implicit_surrogate(
    inner: Callable[[Tensor], Tensor], outer: Callable[[Tensor], Tensor], solution: Tensor, step: float, iterations: int
) -> Tensor:
    r"""Give a scalar whose value is the outer loss and whose gradient is the hypergradient.

    With :math:`\Phi(\delta, \theta) = \delta - \eta \nabla_\delta L_\text{in}(\delta, \theta)`, whose fixed point is
    the inner solution, the hypergradient is

    .. math:: \nabla_\theta L_\text{out} + (\partial_\theta \Phi)^\top v, \qquad
        v = \partial_\delta L_\text{out} + (\partial_\delta \Phi)^\top v

    where v comes from so many iterations of the second equation from 0 on (Grazzi et al. 2020, as in I-BAU, Zeng et al.
    2022). The surrogate is :math:`L_\text{out} + v^\top \Phi` less the value of the second part.

    Args:
        inner: The inner loss, which delta minimizes, from delta to a scalar; twice differentiable.
        outer: The outer loss, which theta minimizes, from delta to a scalar.
        solution: delta, the inner solution; no gradient flows to it.
        step: eta > 0, the step size of gradient descent on the inner loss.
        iterations: Iterations of the fixed point, >= 0; 0 ignores that the solution depends on theta.

    Returns:
        Scalar.
    """
    with torch.enable_grad():
        delta = solution.detach().requires_grad_(True)
        loss = outer(delta)
        if not iterations:
            return loss
        [slope] = torch.autograd.grad(loss, delta, retain_graph=True)
        [descent] = torch.autograd.grad(inner(delta), delta, create_graph=True)
        moved = delta - step * descent
        v = torch.zeros_like(slope)
        for _ in range(iterations):
            [turned] = torch.autograd.grad(moved, delta, grad_outputs=v, retain_graph=True)
            v = slope + turned
        pulled = (v * moved).sum()
        return loss + pulled - pulled.detach()
