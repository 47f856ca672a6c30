"""Which of a few numbers, one per class, is too small to be chance."""

from __future__ import annotations

import torch
from scipy.special import stdtr
from torch import Tensor

__all__ = ["mad_index", "smallest_p_value"]


def mad_index(values: Tensor) -> Tensor:
    r"""Anomaly index on the small side, by the median absolute deviation (Wang et al. 2019, Neural Cleanse, Sec. V-A).

    .. math:: a_c = \frac{\tilde v - v_c}{1.4826 \cdot \mathrm{median}_j\,|v_j - \tilde v|}

    Above 2 a class is called an outlier. Only small values are suspicious, so the index is negative above the median.
    Where more than half of the values are equal it is infinite for those that differ, and 0 for the rest.

    Args:
        values: One per class, ``[C]``. Values that are not finite stay out of the median and get the index ``-inf``.

    Returns:
        Float64 ``[C]``.

    Raises:
        ValueError: If there are not at least three finite values.
    """
    values = values.double()
    finite = _finite(values)
    center = finite.quantile(0.5)
    deviation = 1.4826 * (finite - center).abs().quantile(0.5)
    gap = center - values
    index = torch.where(gap == 0, 0.0, gap / deviation)
    return torch.where(values.isfinite(), index, -torch.inf)


def smallest_p_value(values: Tensor) -> float:
    r"""How likely the smallest of C sizes is that small by chance, its being the smallest accounted for.

    Sizes differ by factors, so logarithms are judged. The smallest is compared with a normal sample of the others; that
    it was selected as the smallest of C is corrected:

    .. math:: t = \frac{\log v_{(1)} - m}{s \sqrt{1 + 1/(C-1)}}, \qquad p = 1 - (1 - F_{C-2}(t))^C

    with mean m and deviation s of the other C - 1 logarithms and Student's distribution function F. TAC's paper has a
    test of that kind, without its formula in public; this one is ours.

    Args:
        values: One per class, >= 0, ``[C]``; values that are not finite are left out. A zero counts as 1e-9 of the
            largest.

    Raises:
        ValueError: If there are not at least three finite values, or one is negative.
    """
    finite = _finite(values.double()).sort().values
    if finite[0] < 0:
        raise ValueError(f"Expected sizes of 0 or more, got {float(finite[0]):g}.")
    floor = max(float(finite[-1]) * 1e-9, torch.finfo(torch.float64).tiny)
    logs = finite.clamp(min=floor).log()
    smallest, rest = logs[0], logs[1:]
    spread = rest.std() * (1 + 1 / len(rest)) ** 0.5
    if spread == 0:
        return float(smallest == rest[0])
    below = stdtr(len(finite) - 2, float((smallest - rest.mean()) / spread))
    return float(1 - (1 - below) ** len(finite))


def _finite(values: Tensor) -> Tensor:
    finite = values[values.isfinite()]
    if values.ndim != 1 or len(finite) < 3:
        raise ValueError(
            f"Expected one number per class, of at least three classes, got {len(finite)} finite ones of shape "
            f"{tuple(values.shape)}. With fewer there is no telling which is out of line."
        )
    return finite
