"""Grad-CAM of a head (Selvaraju et al., ICCV 2017), where only the features need gradients."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from lit_backdoor.functional.precision import full

__all__ = ["head_cam"]


def head_cam(head: Callable[[Tensor], Tensor], features: Tensor, size: tuple[int, int]) -> Tensor:
    r"""Say where in an image the evidence for its predicted class lies.

    .. math:: \mathrm{ReLU}\Bigl(\sum_d \bar g_d h_d\Bigr), \qquad \bar g_d = \mathrm{mean}_{hw}\,
        \partial z_{\hat y} / \partial h_d

    scaled to its own maximum. It works in inference mode, too.

    Args:
        head: From features to logits.
        features: h, ``[B, D, h, w]``.
        size: Height and width of the map.

    Returns:
        In [0, 1], ``[B, 1, *size]``, without gradient; zeros where nothing speaks for the class.

    Raises:
        ValueError: If features have no height and width.
    """
    if features.ndim != 4:
        raise ValueError(f"Expected features [B, D, h, w] for Grad-CAM, got {list(features.shape)}.")
    with torch.inference_mode(False), torch.enable_grad():
        given = full(features).detach().clone().requires_grad_()
        (gradient,) = torch.autograd.grad(full(head(given)).amax(1).sum(), given)
        maps = (gradient.mean((2, 3), keepdim=True) * given).sum(1, keepdim=True).relu().detach()
    maps = F.interpolate(maps, size, mode="bilinear", align_corners=False)
    return maps / maps.amax((1, 2, 3), keepdim=True).clamp(min=torch.finfo(torch.float32).tiny)
