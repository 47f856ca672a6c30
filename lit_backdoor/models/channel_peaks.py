"""The strongest activation of each channel, for every image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from torch import Tensor, nn

from lit_backdoor.models.base import Classifier

__all__ = ["logits_and_peaks"]


def logits_and_peaks(
    classifier: Classifier, layers: Sequence[nn.Module], images: Tensor
) -> tuple[Tensor, list[Tensor]]:
    """Give the logits and, for each layer, the maxima of its output ``[B, C, h, w]`` over positions, float ``[B, C]``.

    Args:
        classifier: The classifier.
        layers: Modules of it that run in a forward pass.
        images: In [0, 1], ``[B, C, H, W]``.
    """
    found: dict[nn.Module, Tensor] = {}

    def keep(layer: nn.Module, _inputs: Any, output: Tensor) -> None:
        found[layer] = output.amax((2, 3)).float()

    handles = [layer.register_forward_hook(keep) for layer in layers]
    try:
        logits = cast(Tensor, classifier(images)).float()
    finally:
        for handle in handles:
            handle.remove()
    return logits, [found[layer] for layer in layers]
