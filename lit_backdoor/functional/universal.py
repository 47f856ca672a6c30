"""One change for all images, found by gradient steps over batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.optim import Optimizer

__all__ = ["batches", "optimized_noise", "signed_noise"]

Objective = Callable[[Tensor, Tensor], Tensor]


def batches(images: Tensor, labels: Tensor, size: int, steps: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Go through rows in batches, shuffled anew in every pass, for so many steps; drawn by torch's generator.

    Args:
        images: ``[N, C, H, W]``.
        labels: ``[N]``.
        size: Rows of a batch; all where there are fewer.
        steps: Number of batches.
    """
    size, order = min(size, len(images)), torch.empty(0, dtype=torch.int64)
    for _ in range(steps):
        if len(order) < size:
            order = torch.randperm(len(images))
        rows, order = order[:size].to(images.device), order[size:]
        yield images[rows], labels[rows]


def signed_noise(given: Iterator[tuple[Tensor, Tensor]], loss: Objective, noise: Tensor, budget: float) -> Tensor:
    """Lower a loss by steps of the gradient's sign, a fifth of the budget each (universal PGD).

    Args:
        given: Batches of images in [0, 1] and labels; as many as there are steps.
        loss: From changed images and labels to a scalar.
        noise: The start, ``[C, H, W]``.
        budget: Largest change of a pixel.

    Returns:
        The noise, ``[C, H, W]`` in [-budget, budget].
    """
    for images, labels in given:
        with torch.enable_grad():
            noise = noise.detach().requires_grad_(True)
            [slope] = torch.autograd.grad(loss((images + noise).clamp(0, 1), labels), noise)
        noise = (noise.detach() - budget / 5 * slope.sign()).clamp(-budget, budget)
    return noise


def optimized_noise(
    given: Iterator[tuple[Tensor, Tensor]],
    loss: Objective,
    noise: Tensor,
    budget: float,
    optimizer: Callable[[list[Tensor]], Optimizer],
) -> Tensor:
    """Lower a loss by an optimizer, the noise clipped after each step.

    Arguments as in `signed_noise`; ``optimizer`` makes the optimizer of the noise.

    Returns:
        The noise, ``[C, H, W]`` in [-budget, budget].
    """
    noise = noise.detach().clone().requires_grad_(True)
    steps = optimizer([noise])
    for images, labels in given:
        with torch.enable_grad():
            steps.zero_grad()
            noise.grad = torch.autograd.grad(loss((images + noise).clamp(0, 1), labels), noise)[0]
        steps.step()
        with torch.no_grad():
            noise.clamp_(-budget, budget)
    return noise.detach()
