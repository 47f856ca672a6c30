"""Checks and sums over the rows that count, shared by the metrics."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["check_flags", "classes", "counting", "ratio"]


def counting(mask: Tensor | None, rows: Tensor) -> Tensor:
    """Return the mask of rows that count: the given one, checked, or all rows.

    Raises:
        ValueError: If the mask is not bool ``[B]``.
    """
    if mask is None:
        return torch.ones(len(rows), dtype=torch.bool, device=rows.device)
    check_flags("mask", mask, len(rows))
    return mask


def check_flags(name: str, flags: Tensor, count: int) -> None:
    """Raise a ``ValueError`` unless ``flags`` is bool ``[count]``."""
    if flags.dtype != torch.bool or flags.shape != (count,):
        raise ValueError(f"Expected `{name}` to be bool [{count}], but got {flags.dtype} {list(flags.shape)}.")


def classes(preds: Tensor, target: Tensor | None = None) -> Tensor:
    """Return predicted classes ``[B]`` from logits ``[B, C]`` or from classes.

    Raises:
        ValueError: If the predictions are neither, or if their number is not that of ``target`` int64 ``[B]``.
    """
    if preds.ndim == 2 and preds.is_floating_point():
        preds = preds.argmax(dim=1)
    if preds.ndim != 1 or preds.is_floating_point():
        raise ValueError(
            f"Expected `preds` to be logits [B, C] or integer classes [B], but got {preds.dtype} {list(preds.shape)}."
        )
    if target is not None and (target.shape != preds.shape or target.is_floating_point()):
        raise ValueError(
            f"Expected `target` to be integer classes {list(preds.shape)}, but got {target.dtype} {list(target.shape)}."
        )
    return preds


def ratio(part: Tensor, whole: Tensor) -> Tensor:
    """Divide sums as float32; NaN where the denominator is zero."""
    nothing = whole == 0
    return (part / whole.masked_fill(nothing, 1)).float().masked_fill(nothing, torch.nan)
