"""Reconstruction of a trigger against a classifier: MARTINI's objective, its settings, and what it keeps per class."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import cast

import torch
from torch import Tensor, nn

from lit_backdoor.functional.cost_schedule import CostRule
from lit_backdoor.functional.martini import LossWeights, content_loss, norm_loss, smooth_loss, ssim_loss
from lit_backdoor.triggers import RegionalTrigger

__all__ = ["ReconstructionSettings", "TriggerBank", "reconstruction_terms"]


@dataclass(frozen=True)
class ReconstructionSettings:
    """How triggers are reconstructed (Tao et al., Sec. 4.2). What the paper does not say is ours.

    Attributes:
        epochs: Epochs of each round.
        images: Images of a batch that are used, those that the trigger is for first.
        lr: Learning rate of Adam (betas .5 and .9, as in the authors' earlier methods) on the kernels.
        lr_statistics: The same on the normalization layer.
        weights: Weights of the terms of Eq. 8; default the paper's.
        alpha: How the weight of these terms moves: Pixel's rule, bounded from below, since images that may leave the
            data cost accuracy.
        regions: Regions per side of the maps; None for the paper's rule.
        kernel: Side of the kernels.
        warm: Whether a class's trigger is trained on from its last round, instead of from the start.

    Raises:
        ValueError: If a number is out of range.
    """

    epochs: int = 1
    images: int = 32
    lr: float = 1e-3
    lr_statistics: float = 1e-2
    weights: LossWeights = field(default_factory=LossWeights)
    alpha: CostRule = field(
        default_factory=lambda: CostRule(
            start=0.05, up=1.5, down=1.5**1.5, patience=3, threshold=0.9, least=0.02, most=1.0
        )
    )
    regions: int | None = None
    kernel: int = 3
    warm: bool = False

    def __post_init__(self) -> None:
        for name in ("epochs", "images", "lr", "lr_statistics", "kernel"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"Expected reconstruction.{name} > 0 and finite, got {getattr(self, name)}.")


def reconstruction_terms(
    trigger: RegionalTrigger, images: Tensor, generated: Tensor, of_all: tuple[Tensor, Tensor], weights: LossWeights
) -> dict[str, Tensor]:
    """Give the weighted terms of Eq. 8 but the cross-entropy, by name.

    Args:
        trigger: The trigger.
        images: Clean images.
        generated: What the trigger makes of them.
        of_all: Average mean and standard deviation of the channels over all clean images, ``[C]`` each.
        weights: The terms' weights.
    """
    with torch.no_grad():
        features = trigger.autoencoder.encode(images)
    terms = {
        "content": weights.content * content_loss(features, trigger.autoencoder.encode(generated)),
        "ssim": weights.ssim * ssim_loss(images, generated),
        "smooth": weights.smooth * smooth_loss(generated),
    }
    if trigger.renormalization is not None:
        layer = trigger.renormalization
        terms["norm"] = weights.norm * norm_loss(layer.mean, layer.std, *of_all)
    return terms


class TriggerBank(nn.Module):
    """Keeps the trained weights of one trigger for each of K classes, as buffers.

    Args:
        trigger: The trigger, as it starts.
        count: K.
    """

    def __init__(self, trigger: RegionalTrigger, count: int) -> None:
        super().__init__()
        for name, weight in _trained(trigger).items():
            self.register_buffer(name, weight.detach().repeat(count, *(1,) * weight.ndim))

    @torch.no_grad()
    def load(self, label: int, trigger: RegionalTrigger) -> None:
        """Give the trigger a class's weights."""
        for name, weight in _trained(trigger).items():
            weight.copy_(cast(Tensor, getattr(self, name))[label])

    @torch.no_grad()
    def store(self, label: int, trigger: RegionalTrigger) -> None:
        """Keep the trigger's weights as a class's."""
        for name, weight in _trained(trigger).items():
            cast(Tensor, getattr(self, name))[label] = weight


def _trained(trigger: RegionalTrigger) -> dict[str, nn.Parameter]:
    layers = {"renormalization": trigger.renormalization, "transformation": trigger.transformation}
    return {
        f"{name}_{part}": weight
        for name, layer in layers.items()
        if layer is not None
        for part, weight in layer.named_parameters()
    }
