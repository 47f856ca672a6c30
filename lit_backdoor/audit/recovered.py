"""Recovered triggers on the person's own images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lit_backdoor.audit.accuracy import predict
from lit_backdoor.audit.detectors import Finding
from lit_backdoor.models import Classifier
from lit_backdoor.report.pictures import LARGEST, amplified, data_uri, gain_for
from lit_backdoor.report.rows import pick
from lit_backdoor.triggers import stamped_by

__all__ = ["recovered"]

_SHOWN = 6
_SMALL = 64  # pixels; smaller pictures are enlarged


@torch.no_grad()
def recovered(
    findings: Sequence[Finding], classifier: Classifier, pixels: Tensor, labels: Tensor, names: Sequence[str]
) -> list[dict[str, Any]]:
    """Stamp some images with each trigger that a detector recovered, those of flagged classes first.

    Args:
        findings: What the detectors found.
        classifier: The model.
        pixels: The images, uint8 ``[N, C, H, W]``.
        labels: Their classes, int64 ``[N]``.
        names: Names of the outputs.

    Returns:
        For each trigger its title, target, success and images as addresses of pictures.
    """
    shown = []
    for finding in sorted(findings, key=lambda found: not found.flagged):
        target, bundle = finding.target, finding.bundle
        if bundle is None or bundle.info["model"] is None or target is None:
            continue
        rows = pick(labels, labels != target, _SHOWN)
        clean = pixels[rows].float() / 255
        stamped = stamped_by(bundle.build(), clean, rows).clamp(0, 1)
        before, after = (predict(classifier, images).tolist() for images in (clean, stamped))
        change = stamped - clean
        gain, side = gain_for(change), max(clean.shape[-2:])
        shown.append({
            "title": finding.detector.title,
            "target": names[target],
            "flagged": bool(finding.flagged),
            "success": finding.success,
            "gain": gain,
            "soft": side > LARGEST,
            "width": _SMALL * 2 if side < _SMALL else None,
            "images": [
                {
                    "name": names[true],
                    "clean": data_uri(clean[i]),
                    "stamped": data_uri(stamped[i]),
                    "difference": data_uri(amplified(change[i], gain)),
                    "before": _answer(before[i], true, target, names),
                    "after": _answer(after[i], true, target, names),
                }
                for i, true in enumerate(labels[rows].tolist())
            ],
        })  # fmt: skip
    return shown


def _answer(given: int, true: int, target: int, names: Sequence[str]) -> dict[str, str]:
    mark = "true" if given == true else "attack" if given == target else "other"
    return {"name": names[given], "mark": mark}
