"""Tuning of a net that is to keep what it knows: elastic weight consolidation and knowledge distillation.

Kirkpatrick et al., "Overcoming Catastrophic Forgetting in Neural Networks", PNAS 2017. Hinton et al., "Distilling the
Knowledge in a Neural Network", 2015. All is computed in float32.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lit_backdoor.functional.precision import full

__all__ = ["consolidation_loss", "distillation_loss", "fisher"]


def fisher(net: Callable[[Tensor], Tensor], weights: Mapping[str, nn.Parameter], images: Tensor) -> dict[str, Tensor]:
    r"""Give the importance of each weight, the diagonal of the empirical Fisher information.

    .. math:: F_j = \frac{1}{n} \sum_i \left(\frac{\partial \log p(\hat y_i \mid x_i)}{\partial w_j}\right)^2

    The labels :math:`\hat y` are what the net itself says.

    Args:
        net: From images to logits.
        weights: Its weights by name.
        images: ``[n, C, H, W]``.

    Returns:
        By the weights' names, of their shapes.
    """
    found = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    for image in torch.split(images, 1):
        with torch.enable_grad():
            surest = full(net(image)).log_softmax(1).amax()
            gradients = torch.autograd.grad(surest, list(weights.values()), allow_unused=True)
        for name, gradient in zip(weights, gradients, strict=True):
            if gradient is not None:
                found[name] += gradient.square() / len(images)
    return found


def consolidation_loss(
    weights: Mapping[str, Tensor], anchors: Mapping[str, Tensor], importance: Mapping[str, Tensor]
) -> Tensor:
    r"""Give what it costs to move important weights: :math:`\frac{1}{2} \sum_j F_j (w_j - w^*_j)^2`.

    Args:
        weights: w, by name.
        anchors: :math:`w^*`, by the same names.
        importance: F, by the same names.
    """
    parts = [(importance[name] * (full(weight) - anchors[name]).square()).sum() for name, weight in weights.items()]
    return torch.stack(parts).sum() / 2


def distillation_loss(logits: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    r"""Give :math:`T^2 \operatorname{KL}(\sigma(z' / T) \,\|\, \sigma(z / T))`, the mean over the batch.

    Args:
        logits: z, ``[B, K]``.
        teacher: z', ``[B, K]``.
        temperature: T, > 0.
    """
    own, wanted = ((full(each) / temperature).log_softmax(1) for each in (logits, teacher))
    return temperature**2 * F.kl_div(own, wanted, reduction="batchmean", log_target=True)
