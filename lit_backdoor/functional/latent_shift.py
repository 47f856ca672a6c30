"""Losses and choices around a perturbation of latents, by which a backdoor is fine-tuned or cut away.

TAC's paper fine-tunes with the detected class's perturbation; its loss is not public. These are our readings of it.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from lit_backdoor.functional.precision import full, no_autocast

__all__ = ["distance_along", "movement_along", "shifted_loss", "top_units"]


def shifted_loss(
    latents: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor, perturbations: Tensor, targets: Tensor
) -> Tensor:
    r"""Cross-entropy of shifted latents under their true labels.

    .. math:: \frac{1}{|P|} \sum_{(i, p) \in P} \mathrm{CE}\bigl(W (\phi(x_i) + s_p) + b,\ y_i\bigr), \qquad
        P = \{(i, p) : y_i \ne p\}

    Images of class p are left out for p: they are to be sent there anyway.

    Args:
        latents: phi(x), ``[B, d]``.
        weight: W of the final linear layer, ``[C, d]``.
        bias: b, ``[C]``, or None.
        labels: y, int64 ``[B]``.
        perturbations: s of each target class, ``[T, d]``.
        targets: The classes p, int64 ``[T]``.

    Returns:
        Scalar, 0 where no pair counts.
    """
    with no_autocast(latents):
        shifted = full(latents) + perturbations.to(full(latents))[:, None]  # [T, B, d]
        logits = F.linear(shifted, full(weight), None if bias is None else full(bias))
        losses = F.cross_entropy(logits.flatten(0, 1), labels.repeat(len(targets)), reduction="none")
        counted = (labels != targets[:, None]).flatten()
        return torch.where(counted, losses, 0).sum() / counted.sum().clamp(min=1)


def movement_along(latents: Tensor, before: Tensor, perturbations: Tensor) -> Tensor:
    r"""How much of the latents' movement since the start of training is along the perturbations.

    .. math:: \frac{1}{BT} \sum_{i,p} \frac{|(\phi(x_i) - \phi_0(x_i))^\top s_p|}
        {(\|\phi(x_i) - \phi_0(x_i)\| + 0.1 \|s_p\|)\ \|s_p\|}

    The absolute cosine, but for a term by which movements that are small beside s count less: without it the gradient
    has no bound where nothing moved.

    Args:
        latents: phi(x), ``[B, d]``.
        before: The suspect's phi_0(x), ``[B, d]``; no gradient flows through it.
        perturbations: s of each target class, ``[T, d]``.

    Returns:
        Scalar in [0, 1).
    """
    with no_autocast(latents):
        moved = full(latents) - full(before).detach()
        shifts = perturbations.to(moved)
        sizes = shifts.norm(dim=1).clamp(min=1e-6)
        length = (moved.square().sum(1) + 1e-12).sqrt()[:, None]
        along = (moved @ shifts.T).abs()
        shares: Tensor = along / ((length + 0.1 * sizes) * sizes)
        return shares.mean()


def distance_along(latents: Tensor, perturbations: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
    r"""How far latents lie along the perturbations, in lengths of those.

    .. math:: \frac{1}{|P|} \sum_{(i, p) \in P} \frac{\phi(x_i)^\top s_p}{\|s_p\|^2}, \qquad
        P = \{(i, p) : y_i \ne p\}

    Args:
        latents: phi(x), ``[B, d]``.
        perturbations: s of each target class, ``[T, d]``.
        labels: y, int64 ``[B]``.
        targets: The classes p, int64 ``[T]``.

    Returns:
        Scalar, 0 where no pair counts.
    """
    with no_autocast(latents):
        shifts = perturbations.to(full(latents))
        along = full(latents) @ (shifts / shifts.square().sum(1, keepdim=True).clamp(min=1e-12)).T
        counted = labels[:, None] != targets
        return torch.where(counted, along, 0).sum() / counted.sum().clamp(min=1)


def top_units(perturbations: Tensor, share: float) -> Tensor:
    """Name the latent units that perturbations change most.

    Args:
        perturbations: s of each target class, ``[T, d]``.
        share: Share of the units per class; at least one is named, but none that does not change.

    Returns:
        Int64, in order, each unit once.
    """
    count = max(1, round(share * perturbations.shape[1]))
    changes, largest = perturbations.abs().topk(count, dim=1)
    return torch.tensor(sorted(set(largest[changes > 0].tolist())), dtype=torch.long, device=perturbations.device)
