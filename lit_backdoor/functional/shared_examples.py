"""Shared adversarial examples: images that two nets get wrong in the same way (SAU, Wei et al. 2023)."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from lit_backdoor.functional.adversarial import avoidance

__all__ = ["js_divergence", "sharing_objective", "unsharing_loss"]


def js_divergence(logits: Tensor, others: Tensor) -> Tensor:
    """Give the Jensen-Shannon divergence of two nets' predictions, ``[B]`` in [0, log 2], from logits ``[B, C]``."""
    one, two = F.log_softmax(logits.float(), 1), F.log_softmax(others.float(), 1)
    middle = torch.logaddexp(one, two) - math.log(2)
    return 0.5 * ((one.exp() * (one - middle)).sum(1) + (two.exp() * (two - middle)).sum(1))


def sharing_objective(logits: Tensor, reference: Tensor, labels: Tensor, error_weight: float = 0.01) -> Tensor:
    r"""What is maximized to find examples that both nets send to the same wrong class (SAU).

    .. math:: \frac{1}{B} \sum_i \frac{\lambda}{2} \bigl[\mathrm{CE}(f(\tilde x_i), y_i)
        + \mathrm{CE}(f_0(\tilde x_i), y_i)\bigr]
        - [\tilde x_i \text{ is not shared}]\; \mathrm{JS}\bigl(f(\tilde x_i), f_0(\tilde x_i)\bigr)

    Args:
        logits: f of the changed images, ``[B, C]``.
        reference: The same of the reference f_0, the suspect as it was given.
        labels: y, int64 ``[B]``.
        error_weight: lambda >= 0.

    Returns:
        Scalar.
    """
    found, expected = logits.argmax(1), reference.argmax(1)
    shared = (found == expected) & (found != labels)
    errors = 0.5 * (F.cross_entropy(logits.float(), labels) + F.cross_entropy(reference.float(), labels))
    return error_weight * errors - torch.where(shared, 0.0, js_divergence(logits, reference)).mean()


def unsharing_loss(logits: Tensor, reference: Tensor, clean_reference: Tensor, labels: Tensor) -> Tensor:
    r"""Loss that takes from a net the errors that it shares with the reference (SAU).

    .. math:: -\frac{1}{B} \sum_{i \in S} \log\bigl(1 - p_{\tilde y_i}(\tilde x_i)\bigr), \qquad
        S = \{i : \tilde y_i \ne y_i,\ \tilde y_i \ne \arg\max f_0(x_i)\}

    where :math:`\tilde y_i` is the reference's class of the changed image.

    Args:
        logits: f of the changed images, ``[B, C]``.
        reference: f_0 of the changed images, ``[B, C]``.
        clean_reference: f_0 of the clean images, ``[B, C]``.
        labels: y, int64 ``[B]``.

    Returns:
        Scalar, at least 0; it is 0 where S is empty.
    """
    wrong = reference.argmax(1)
    counted = (wrong != labels) & (wrong != clean_reference.argmax(1))
    return torch.where(counted, avoidance(logits, wrong), 0.0).mean()
