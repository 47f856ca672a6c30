"""Mixtures of two images of a batch (mixup, Zhang et al., ICLR 2018)."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["mixtures"]


def mixtures(images: Tensor) -> Tensor:
    r"""Mix each image with another one of its batch: :math:`\lambda x_i + (1 - \lambda) x_j`, lambda uniform in [0, 1].

    Args:
        images: ``[B, C, H, W]``.

    Returns:
        As many mixtures. Draws come from torch's global generator of the CPU.
    """
    shares = torch.rand(len(images), 1, 1, 1).to(images)
    return shares * images + (1 - shares) * images[torch.randperm(len(images)).to(images.device)]
