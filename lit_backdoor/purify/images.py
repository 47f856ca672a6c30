"""Clean images in two parts: some to clean the model by, the others to measure it on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from lit_backdoor.audit.accuracy import predict
from lit_backdoor.audit.images import Images
from lit_backdoor.models import Classifier

__all__ = ["HELD_OUT", "accuracy_on", "hold_out", "write_parts"]

HELD_OUT = 0.25  # share of each class that is measured on


def hold_out(labels: Tensor, seed: int) -> Tensor:
    """Draw what is measured on: a share of each class, at least one image and never all of them.

    Args:
        labels: int64 ``[N]``.
        seed: Seed of the draw.

    Returns:
        Whether each image is held out, bool ``[N]``.
    """
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    held = torch.zeros(len(labels), dtype=torch.bool)
    for label in sorted(set(labels.tolist())):
        own = order[labels[order] == label]
        held[own[: min(max(round(HELD_OUT * len(own)), 1), len(own) - 1)]] = True
    return held


def write_parts(images: Images, pixels: Tensor, held: Tensor, folder: Path) -> dict[str, Path]:
    """Write both parts as parquet files.

    Returns:
        The file of each part, ``train`` and ``test``.
    """
    files = {"train": folder / "root.parquet", "test": folder / "held_out.parquet"}
    for file, chosen in zip(files.values(), (~held, held), strict=True):
        replace(images, index=images.index[chosen], labels=images.labels[chosen]).save(pixels[chosen], file)
    return files


def accuracy_on(
    classifier: Classifier, pixels: Tensor, labels: Tensor, target: int | None = None
) -> dict[str, float | None]:
    """Measure a classifier on images: ``acc``, and ``acc_target`` on those of the target class, if there are any."""
    right = (predict(classifier, pixels) == labels).float()
    own = right[labels == target] if target is not None else right[:0]
    return {"acc": float(right.mean()), "acc_target": float(own.mean()) if len(own) else None}
