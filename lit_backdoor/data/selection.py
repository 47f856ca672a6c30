"""Reading which rows a selection stage chose."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["read_selection"]


def read_selection(path: str) -> Tensor:
    """Read a selection bundle: positions in the source's train part, int64 ``[K]``.

    Raises:
        ValueError: If the bundle holds no such positions.
    """
    from lit_backdoor.bundle import open_bundle  # only those who read a selection need bundles

    tensors: dict[str, Tensor] = open_bundle(path, kind="selection").tensors()
    indices = tensors.get("indices")
    if indices is None or indices.dtype != torch.int64 or indices.ndim != 1 or not len(indices):
        raise ValueError(
            f"Expected the selection '{path}' to hold 'indices', a non-empty int64 vector, got {sorted(tensors)}."
        )
    return indices
