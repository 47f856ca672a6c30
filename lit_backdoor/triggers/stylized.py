"""DFST's trigger: the image, repainted in a style."""

from __future__ import annotations

import torch
from torch import Tensor

from lit_backdoor.errors import check_share
from lit_backdoor.models.style_net import StyleNet
from lit_backdoor.triggers.base import Trigger

__all__ = ["Stylized"]


class Stylized(Trigger):
    """Mix an image with itself in a style: ``x' = (1 - a) x + a s(x)``.

    Cheng et al., "Deep Feature Space Trojan Attack of Neural Networks by Controlled Detoxification", AAAI 2021.
    Deviation: the paper's CycleGAN paints a sunrise; here it is the style of a painting.

    Args:
        net: Paints s(x).
        strength: Share a of the painted image, in (0, 1]. Release: .6.

    Raises:
        ValueError: If the strength is out of range.
    """

    def __init__(self, net: StyleNet, strength: float = 0.6) -> None:
        super().__init__()
        self.net = net.requires_grad_(False)
        self.strength = check_share("strength of Stylized", strength, closed=True)

    def forward(self, images: Tensor, index: Tensor) -> Tensor:
        """Repaint the images."""
        return torch.lerp(images, self.net(images), self.strength).clamp(0, 1)
