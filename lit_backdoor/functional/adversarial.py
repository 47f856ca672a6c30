"""Adversarial changes of images, found by projected gradient ascent in pixel space."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["avoidance", "project", "projected_ascent"]

Norm = Literal["linf", "l2"]


def avoidance(logits: Tensor, classes: Tensor) -> Tensor:
    """Give -log(1 - p) of a class for each row, ``[B]``, from logits ``[B, C]``; finite if the net is sure of it."""
    others = F.log_softmax(logits.float(), 1).masked_fill(F.one_hot(classes, logits.shape[1]).bool(), -torch.inf)
    return -torch.logsumexp(others, 1)


def project(change: Tensor, images: Tensor, budget: float, norm: Norm = "linf") -> Tensor:
    """Bring changes of images into a ball, and the changed images into [0, 1].

    Args:
        change: ``[B, C, H, W]``, or ``[1, C, H, W]`` where one change is for all images.
        images: In [0, 1], ``[B, C, H, W]``.
        budget: Radius of the ball, > 0: of each pixel (``linf``) or of a whole change's length (``l2``).
        norm: Which of the two.

    Returns:
        The changes that the images then have, ``[B, C, H, W]``.
    """
    if norm == "linf":
        change = change.clamp(-budget, budget)
    else:
        length = change.flatten(1).norm(dim=1).clamp(min=budget)
        change = change * (budget / length)[:, None, None, None]
    return (images + change).clamp(0, 1) - images


def projected_ascent(
    images: Tensor,
    objective: Callable[[Tensor], Tensor],
    start: Tensor,
    budget: float,
    steps: int,
    step: float,
    norm: Norm = "linf",
) -> Tensor:
    """Change each image so that an objective rises, by the sign of the gradient (PGD, Madry et al. 2018).

    Args:
        images: x in [0, 1], ``[B, C, H, W]``.
        objective: From changed images to a scalar.
        start: The first change, of the images' shape.
        budget: Bound on a change, see `project`.
        steps: Steps of the ascent; 0 gives the start.
        step: Change of a pixel in each step.
        norm: Norm of the bound.

    Returns:
        Changed images in [0, 1], without gradient.
    """
    with torch.enable_grad():
        change = project(start, images, budget, norm)
        for _ in range(steps):
            change = change.detach().requires_grad_(True)
            [slope] = torch.autograd.grad(objective(images + change), change)
            change = project(change.detach() + step * slope.sign(), images, budget, norm)
    return (images + change).detach().clamp(0, 1)
