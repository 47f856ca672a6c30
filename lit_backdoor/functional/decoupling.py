"""Decoupling benign features and inverting the trigger (BTI-DBF, Xu et al., ICLR 2024).

S_a is the part of a classifier that gives features, S_b the head that gives logits. Distances are mean squared (l2)
or mean absolute (l1) errors over the batch, as in the official release, where the paper writes norms; all are computed
in float32, under autocast too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from lit_backdoor.errors import one_of
from lit_backdoor.functional.precision import full

__all__ = [
    "Inversion",
    "adaptive_loss",
    "error",
    "hinged_loss",
    "inversion_loss",
    "lost_confidence",
    "mask_loss",
    "occlusions",
    "pieces",
    "replace_share",
    "soft_mask",
    "tau_to_pixels",
    "unlearning_loss",
]

Head = Callable[[Tensor], Tensor]


def soft_mask(raw: Tensor) -> Tensor:
    r"""Map unbounded parameters to a mask in (0, 1): :math:`\tanh(M) / (2 + 10^{-7}) + 1/2`.

    The release's form; the paper only asks for elements in [0, 1]. Larger means more likely benign.
    """
    return torch.tanh(full(raw)) / (2 + 1e-7) + 0.5


def mask_loss(head: Head, features: Tensor, mask: Tensor, target: Tensor) -> Tensor:
    r"""Objective of the mask (Eq. 1): benign features alone should suffice, the remaining ones should not.

    .. math:: \mathcal{L}(S_b(h \odot m), y) - \mathcal{L}(S_b(h \odot (1 - m)), y)

    Unbounded below; the release adds no penalty either.

    Args:
        head: S_b, from features to logits.
        features: :math:`h = S_a(x)`, ``[B, ...]``.
        mask: In [0, 1], broadcast over the batch, ``[1, ...]``.
        target: True labels, int64 ``[B]``.
    """
    kept = F.cross_entropy(full(head(features * mask)), target)
    return kept - F.cross_entropy(full(head(features * (1 - mask))), target)


def error(x: Tensor, y: Tensor, norm: str = "l2") -> Tensor:
    """Mean squared (``l2``) or mean absolute (``l1``) difference over all elements.

    Raises:
        ValueError: If the norm is another one.
    """
    measure = F.mse_loss if one_of("norm", norm, ("l1", "l2")) == "l2" else F.l1_loss
    return measure(full(x), full(y))


class Inversion(NamedTuple):
    """The generator's loss and what it is made of, all scalars.

    Attributes:
        loss: What is minimized.
        image: Error between images and generated images.
        benign: Error between their features under the mask.
        backdoor: Error between their features under one minus the mask.
        bounded: Bool; whether the bounds held, so that the loss is the objective and not the image error.
    """

    loss: Tensor
    image: Tensor
    benign: Tensor
    backdoor: Tensor
    bounded: Tensor


def inversion_loss(
    images: Tensor,
    generated: Tensor,
    features: Tensor,
    generated_features: Tensor,
    mask: Tensor,
    *,
    tau: float,
    feature_bound: float = 3.0,
    benign_weight: float = 0.01,
    norm: str = "l2",
) -> Inversion:
    r"""Objective of the backdoor generator (Eq. 2), as the release does it.

    .. math:: \ell = \begin{cases}
        \omega\, d(h \odot m, h' \odot m) - d(h \odot (1 - m), h' \odot (1 - m))
            & \text{if } d(x, x') \le \tau \text{ and } d(h \odot m, h' \odot m) \le \beta \\
        d(x, x') & \text{otherwise}
        \end{cases}

    The branch is taken for the whole batch, so the bound is a soft one. The paper has omega = 1 and no bound on
    features (``benign_weight=1``, ``feature_bound=float("inf")``). A mask of zeros is Table 4's ablation.

    Args:
        images: x, ``[B, C, H, W]``.
        generated: x', of the same shape.
        features: h, the features of x, ``[B, ...]``.
        generated_features: h', the features of x'.
        mask: m in [0, 1], broadcast over the batch.
        tau: Bound on the image error, > 0, in the units of the images and of the norm. See `tau_to_pixels`.
        feature_bound: Bound beta on the benign error. Release: 3.
        benign_weight: Weight omega of the benign error. Release: 0.01.
        norm: ``l2`` (mean squared) or ``l1`` (mean absolute).

    Raises:
        ValueError: If ``tau`` is not positive or the norm is unknown.
    """
    _check_tau(tau)
    image = error(generated, images, norm)
    benign = error(generated_features * mask, features * mask, norm)
    backdoor = error(generated_features * (1 - mask), features * (1 - mask), norm)
    bounded = (image <= tau) & (benign <= feature_bound)
    # a choice on the device: no wait for its value, and every rank's graph holds the same parameters
    return Inversion(torch.where(bounded, benign_weight * benign - backdoor, image), image, benign, backdoor, bounded)


def hinged_loss(parts: Inversion, tau: float, benign_weight: float = 0.01) -> Tensor:
    r"""Objective of the backdoor generator whose bound is a hinge, not a branch (ours).

    .. math:: 10 \max(0,\ d(x, x') / \tau - 1) + \omega\, d(h \odot m, h' \odot m)
        - \log d(h \odot (1 - m), h' \odot (1 - m))

    The parts keep their balance however little the features change: the logarithm's gradient does not depend on their
    scale. 1e-6 is added under the logarithm, which has no value at 0.

    Args:
        parts: The errors, of `inversion_loss`.
        tau: Bound on the image error, > 0, as there.
        benign_weight: Weight omega of the benign error.
    """
    beyond = 10 * F.relu(parts.image / tau - 1)
    return beyond + benign_weight * parts.benign - torch.log(parts.backdoor + 1e-6)


def tau_to_pixels(tau: float, std: Sequence[float], norm: str = "l2") -> float:
    """Convert a bound on the error of normalized images to one on images in [0, 1].

    An image whose error is ``tau`` in every normalized channel has the pixel error ``tau * mean(std**2)`` (l2) or
    ``tau * mean(std)`` (l1). The paper's 0.3 is about 0.019 with CIFAR-10's deviations.

    Raises:
        ValueError: If ``tau`` is not positive or the norm is unknown.
    """
    _check_tau(tau)
    power = 2 if one_of("norm", norm, ("l1", "l2")) == "l2" else 1
    return tau * sum(float(value) ** power for value in std) / len(std)


def _check_tau(tau: float) -> None:
    if not tau > 0:
        raise ValueError(f"Expected tau > 0, got {tau}. It bounds how far generated images may be from the clean ones.")


def unlearning_loss(
    logits: Tensor,
    generated_logits: Tensor,
    features: Tensor,
    generated_features: Tensor,
    target: Tensor,
    norm: str = "l2",
) -> Tensor:
    r"""Objective of unlearning (Eq. 3): true labels with and without trigger, features close together.

    .. math:: \mathcal{L}(f(x), y) + \mathcal{L}(f(G(x)), y) + d(S_a(x), S_a(G(x)))

    Args:
        logits: f(x), ``[B, C]``.
        generated_logits: f(G(x)), ``[B, C]``.
        features: S_a(x), ``[B, ...]``.
        generated_features: S_a(G(x)).
        target: True labels, int64 ``[B]``.
        norm: ``l2`` (mean squared) or ``l1`` (mean absolute).
    """
    both = F.cross_entropy(full(logits), target) + F.cross_entropy(full(generated_logits), target)
    return both + error(features, generated_features, norm)


def adaptive_loss(
    head: Head, features: Tensor, triggered_features: Tensor, mask: Tensor, target: Tensor, attack_label: Tensor
) -> Tensor:
    r"""Objective of Adaptive BadNets (Eq. 7-10): backdoor features that classify benign images too.

    .. math::
        \mathcal{L}_n &= \mathcal{L}(S_b(h), y) + \mathcal{L}(S_b(h'), y') \\
        \mathcal{L}_c &= \mathcal{L}(S_b(h \odot m), y) \\
        \mathcal{L}_t &= \mathcal{L}(S_b(h \odot (1 - m)), y) + \mathcal{L}(S_b(h' \odot (1 - m)), y')

    Args:
        head: S_b, from features to logits.
        features: h of clean images, ``[B, ...]``.
        triggered_features: h' of triggered images, ``[B', ...]``; B' may differ from B.
        mask: In [0, 1], broadcast over the batch.
        target: True labels y of the clean images, int64 ``[B]``.
        attack_label: The attack's labels y' of the triggered images, int64 ``[B']``.

    Returns:
        The sum of the three, scalar.
    """

    def loss(inputs: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(full(head(inputs)), labels)

    normal = loss(features, target) + loss(triggered_features, attack_label)
    benign = loss(features * mask, target)
    trigger = loss(features * (1 - mask), target) + loss(triggered_features * (1 - mask), attack_label)
    return normal + benign + trigger


def replace_share(images: Tensor, generator: Callable[[Tensor], Tensor], share: float) -> Tensor:
    """Replace random rows of a batch by their generated images: the share, rounded down, and one more, as the release.

    Args:
        images: x in [0, 1], ``[B, C, H, W]``.
        generator: G, which changes one image independently of others; only the rows to replace go through it.
        share: In (0, 1].

    Returns:
        Images of x's type, ``[B, C, H, W]``. Draws come from torch's global generator of the CPU.
    """
    count = min(len(images), int(share * len(images) + 1))
    rows = torch.randperm(len(images))[:count].to(images.device)
    return images.index_copy(0, rows, generator(images[rows]).to(images.dtype))


def pieces(images: Tensor, generated: Tensor, grid: int = 4, strongest: float = 2.0) -> Tensor:
    """Give the images random pieces of their triggers, at random strengths; not in the paper.

    An inverted trigger spreads over the whole image, so a purifier could recognize it by any part and ignore
    the others; of pieces it must remove each.

    Args:
        images: x in [0, 1], ``[B, C, H, W]``.
        generated: G(x), of the same shape.
        grid: Squares per side; each image keeps a random share of them.
        strongest: The strength is uniform up to this, per image; 1 is the trigger as it is.

    Returns:
        Images in [0, 1], ``[B, C, H, W]``. Draws come from torch's global generator of the CPU.
    """
    count = len(images)
    kept = torch.rand(count, 1, grid, grid) < torch.rand(count, 1, 1, 1)
    strength = strongest * torch.rand(count, 1, 1, 1)
    part = F.interpolate(kept.float(), images.shape[-2:], mode="nearest") * strength
    return (images + part.to(images) * (generated - images)).clamp(0, 1)


def occlusions(images: Tensor, largest: float = 0.3) -> Tensor:
    """Cover a random rectangle of every image by a random color or noise; not in the paper.

    Whatever a purifier learned of the triggers that were inverted, it must not leave another small, solid one.

    Args:
        images: x in [0, 1], ``[B, C, H, W]``.
        largest: Largest side of a rectangle, as a share of the image's.

    Returns:
        Images in [0, 1], ``[B, C, H, W]``. Draws come from torch's global generator of the CPU.
    """
    count, channels, height, width = images.shape
    inside = torch.ones(count, 1, height, width, dtype=torch.bool)
    for axis, size in ((2, height), (3, width)):
        length = torch.randint(2, max(int(largest * size), 2) + 1, (count, 1))
        start = (torch.rand(count, 1) * (size - length + 1)).long()
        place = torch.arange(size)
        within = (place >= start) & (place < start + length)
        inside &= within[:, None, :, None] if axis == 2 else within[:, None, None, :]
    flat, noise = torch.rand(count, channels, 1, 1), torch.rand(count, channels, height, width)
    paint = torch.where(torch.rand(count, 1, 1, 1) < 0.7, flat, noise)
    paint = torch.where(torch.rand(count, 1, 1, 1) < 0.5, paint, paint.round())  # half of them saturated
    strength = torch.rand(count, 1, 1, 1).clamp(max=0.3) / 0.3  # most are opaque
    return images + (inside * strength).to(images) * (paint.to(images) - images)


def lost_confidence(before: Tensor, after: Tensor) -> tuple[Tensor, Tensor]:
    r"""Compare predictions on an input and on its purified form (detection, App. A).

    The input is flagged where the classes differ. The paper has no score; here it is the share of the first predicted
    class's probability that is lost, :math:`1 - \min(1, p'_c / p_c)` with :math:`c = \arg\max p`.

    Args:
        before: Logits of inputs, ``[B, C]``.
        after: Logits of the same inputs purified.

    Returns:
        Scores in [0, 1], larger is more suspicious, and flags, bool; ``[B]`` each.
    """
    first = before.argmax(1, keepdim=True)
    old, new = (full(logits).log_softmax(1).gather(1, first).squeeze(1) for logits in (before, after))
    return 1 - (new - old).clamp(max=0).exp(), after.argmax(1) != first.squeeze(1)
