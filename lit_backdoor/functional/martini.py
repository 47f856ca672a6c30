"""MARTINI: the normalization layer and the losses of its trigger reconstruction (Tao et al., Eq. 1 and 4 to 8).

Images are in [0, 1] here, while the paper's loss weights are for pixels from 0 to 255: the losses that depend on the
scale are given in those units, so that the weights are the paper's.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch.nn.functional as F
from torch import Tensor

from lit_backdoor.functional.precision import full, no_autocast

__all__ = [
    "LossWeights",
    "channel_moments",
    "content_loss",
    "norm_loss",
    "renormalize",
    "smooth_loss",
    "ssim_loss",
]

PIXEL = 255.0  # the paper's white


@dataclass(frozen=True)
class LossWeights:
    r"""Weights of the terms that keep a reconstructed image close to the clean one (Eq. 8).

    The sum of the weighted terms is scaled by the dynamic :math:`\alpha`.

    Attributes:
        content: :math:`\lambda_0`. Paper: .001.
        ssim: :math:`\lambda_1`. Paper: 100.
        smooth: :math:`\lambda_2`. Paper: .05.
        norm: Weight of the norm loss. Paper: 1.

    Raises:
        ValueError: If a weight is negative.
    """

    content: float = 0.001
    ssim: float = 100.0
    smooth: float = 0.05
    norm: float = 1.0

    def __post_init__(self) -> None:
        for field in fields(self):
            if not getattr(self, field.name) >= 0:
                raise ValueError(f"Expected weights.{field.name} >= 0, got {getattr(self, field.name)}.")


def channel_moments(images: Tensor) -> tuple[Tensor, Tensor]:
    """Give mean and standard deviation of every channel of every image, float ``[B, C]`` each."""
    wide = full(images)
    return wide.mean((-2, -1)), wide.std((-2, -1), correction=0)


def renormalize(images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    r"""Give every image the same channel statistics (Eq. 1): :math:`(x - \mu_x) / \sigma_x \cdot \sigma_b + \mu_b`.

    The result is not clipped. A channel that hardly varies (by less than 1/255) is not amplified.

    Args:
        images: x, ``[B, C, H, W]``.
        mean: :math:`\mu_b`, ``[C]``.
        std: :math:`\sigma_b`, ``[C]``.
    """
    own_mean, own_std = (moment[..., None, None] for moment in channel_moments(images))
    centered = (full(images) - own_mean) / own_std.clamp(min=1 / PIXEL)
    return (centered * std[:, None, None] + mean[:, None, None]).to(images.dtype)


def ssim_loss(images: Tensor, generated: Tensor, window: int = 5) -> Tensor:
    """Give 1 - SSIM, in [0, 2] (Eq. 4).

    Deviation: the paper's equation is SSIM itself, whose minimum would be the least similar image.

    Args:
        images: In [0, 1], ``[B, C, H, W]``.
        generated: In [0, 1], of the same shape.
        window: Side of the Gaussian window, odd. Ours is 5, for small images.
    """
    from kornia.metrics import ssim  # slow to import

    return 1 - ssim(full(images), full(generated), window).mean()


def content_loss(features: Tensor, generated: Tensor) -> Tensor:
    r"""Give the mean squared difference of features (Eq. 5), with the clean ones scaled to a root mean square of 255.

    The scale, which the paper does not need for its one encoder, makes the loss comparable between encoders.

    Args:
        features: a, of the clean images, ``[B, C', H', W']``.
        generated: Those of the generated images, of the same shape.
    """
    clean = full(features)
    return PIXEL**2 * F.mse_loss(full(generated), clean) / clean.square().mean().clamp(min=1e-12)


def norm_loss(mean: Tensor, std: Tensor, mean_of_all: Tensor, std_of_all: Tensor) -> Tensor:
    """Give how far the trigger's channel statistics are from the images' average ones (Eq. 6), in units of 1/255.

    Args:
        mean: The trigger's, ``[C]``.
        std: The trigger's, ``[C]``.
        mean_of_all: Average over the images, ``[C]``.
        std_of_all: Average over the images, ``[C]``.
    """
    return PIXEL * ((mean - mean_of_all).abs().mean() + (std - std_of_all).abs().mean())


def smooth_loss(generated: Tensor) -> Tensor:
    """Give the mean squared difference of pixels and their 3x3 neighborhoods (Eq. 7), in units of 1/255 squared."""
    with no_autocast(generated):
        wide = full(generated)
        pooled = F.avg_pool2d(wide, 3, stride=1, padding=1, count_include_pad=False)
        return PIXEL**2 * F.mse_loss(wide, pooled)
