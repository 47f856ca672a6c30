"""The smallest mask and pattern that lead given images to a class."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from lit_backdoor.functional.cost_schedule import CostRule, move_cost, start_cost
from lit_backdoor.functional.decoupling import soft_mask
from lit_backdoor.functional.trigger_inversion import stamp_mask

__all__ = ["smallest_trigger"]


def smallest_trigger(
    classify: Callable[[Tensor], Tensor],
    images: Tensor,
    target: int,
    rule: CostRule,
    steps: int,
    lr: float,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    r"""Search a trigger for one class by Adam with betas .5 and .9 (Neural Cleanse, Wang et al. 2019, Eq. 3).

    .. math:: \min_{m, \Delta} \mathrm{CE}\bigl(f((1 - m) \odot x + m \odot \Delta),\ t\bigr) + c \|m\|_1

    The weight c follows the rule. The mask starts in U(0, 1/4), the pattern in U(0, 1), all else being equal.

    Args:
        classify: From images to logits; gradients flow.
        images: x in [0, 1], ``[B, C, H, W]``.
        target: The class t.
        rule: How c moves, and from which success rate on a trigger works.
        steps: Number of steps, at least 1.
        lr: Learning rate.
        generator: Source of the start, on the CPU.

    Returns:
        Mask ``[1, H, W]`` and pattern ``[C, H, W]`` in [0, 1]: the smallest that worked, else the last.
    """
    starts = [
        most * torch.rand(1, channels, *images.shape[2:], generator=generator)
        for most, channels in ((0.25, 1), (1.0, images.shape[1]))
    ]
    raw = [torch.atanh(2 * start.clamp(0.01, 0.99) - 1).to(images.device).requires_grad_() for start in starts]
    optimizer = torch.optim.Adam(raw, lr=lr, betas=(0.5, 0.9))
    wanted, state = torch.full((len(images),), target, device=images.device), start_cost(1, rule)
    best: tuple[Tensor, Tensor] | None = None
    least = float("inf")
    with torch.enable_grad():
        for _ in range(steps):
            mask, pattern = soft_mask(raw[0]), soft_mask(raw[1])
            logits = classify(stamp_mask(images, mask, pattern)[0]).float()
            rate, size = (logits.argmax(1) == target).float().mean().cpu(), float(mask.sum())
            if rate >= rule.threshold and size < least:
                best, least = (mask.detach()[0], pattern.detach()[0]), size
            loss = F.cross_entropy(logits, wanted) + float(state.cost) * mask.sum()
            for each, slope in zip(raw, torch.autograd.grad(loss, raw), strict=True):
                each.grad = slope
            optimizer.step()
            state = move_cost(state, rate[None], rule)
    return best or (mask.detach()[0], pattern.detach()[0])
