"""What predictions on changed copies of an input say of it: STRIP and SCALE-UP. All is computed in float32."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from lit_backdoor.functional.precision import full

__all__ = ["ClassStatistics", "class_statistics", "mean_entropy", "normal_boundary", "prediction_consistency"]


def mean_entropy(logits: Tensor) -> Tensor:
    r"""Mean entropy of predictions on copies (STRIP, Gao et al., ACSAC 2019).

    .. math:: H = -\frac1N \sum_{n=1}^{N} \sum_{k} p_{nk} \log_2 p_{nk}

    Args:
        logits: Of N copies, ``[N, B, K]``.

    Returns:
        In bits, from 0 to the logarithm of K, ``[B]``.
    """
    logs = full(logits).log_softmax(-1)
    return -(logs.exp() * logs).sum(-1).mean(0) / torch.log(torch.tensor(2.0))


def normal_boundary(values: Tensor, share: float) -> Tensor:
    """Give the value that a share of a normal distribution with the mean and deviation of values exceeds (STRIP).

    Args:
        values: ``[N]``, N at least 2.
        share: In (0, 1).
    """
    quantile: Tensor = torch.special.ndtri(torch.tensor(1 - share, dtype=torch.float64))
    found: Tensor = values.double().mean() + quantile.to(values.device) * values.double().std()
    return found.to(values.dtype)


def prediction_consistency(logits: Tensor, changed: Tensor) -> Tensor:
    """Share of copies that keep an input's class: SPC (SCALE-UP, Guo et al., ICLR 2023).

    Args:
        logits: Of the inputs, ``[B, K]``.
        changed: Of N copies, ``[N, B, K]``.

    Returns:
        In [0, 1], ``[B]``.
    """
    return (full(changed).argmax(-1) == full(logits).argmax(-1)).float().mean(0)


class ClassStatistics(NamedTuple):
    """Mean and standard deviation of values for each class, ``[K]``."""

    mean: Tensor
    std: Tensor


def class_statistics(values: Tensor, classes: Tensor, num_classes: int) -> ClassStatistics:
    """Compute mean and deviation of the values of each class (SCALE-UP).

    A class with fewer than two values, or whose values are all equal, gets those of all values together, and a
    deviation of 1 if these are all equal, too.

    Args:
        values: ``[N]``.
        classes: ``[N]``, int64.
        num_classes: K.
    """
    whole = values.std() if len(values) > 1 else values.new_tensor(0.0)
    mean = values.mean().repeat(num_classes)
    std = (whole if whole > 0 else torch.ones_like(whole)).repeat(num_classes)
    for label in torch.unique(classes).tolist():
        own = values[classes == label]
        if len(own) > 1 and own.std() > 0:
            mean[label], std[label] = own.mean(), own.std()
    return ClassStatistics(mean, std)
