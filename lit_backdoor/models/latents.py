"""Latents: what goes into a classifier's final linear layer."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lit_backdoor.models.base import Classifier, evaluating

__all__ = ["check_final_linear", "latents_and_logits"]


def latents_and_logits(classifier: Classifier, images: Tensor) -> tuple[Tensor, Tensor]:
    """Give the input of the final linear layer and the logits, from one forward pass; gradients flow through both.

    Args:
        classifier: Any classifier that `check_final_linear` lets pass.
        images: In [0, 1], ``[B, C, H, W]``.

    Returns:
        Latents ``[B, d]`` and logits ``[B, num_classes]``.

    Raises:
        ValueError: If there is no such layer, or it does not see one vector per image, once.
    """
    found: list[Tensor] = []

    def keep(_module: nn.Module, inputs: Any) -> None:
        found.append(inputs[0])

    handle = classifier.final_linear.register_forward_pre_hook(keep)
    try:
        logits = classifier(images)
    finally:
        handle.remove()
    if len(found) != 1 or found[0].shape[:-1] != logits.shape[:-1]:
        shapes = [tuple(latents.shape) for latents in found]
        raise ValueError(
            f"Expected the layer '{classifier.final_linear_name}' to see one vector per image, once, got {shapes}."
        )
    return found[0], logits


def check_final_linear(classifier: Classifier) -> None:
    """Check that a classifier's logits are what the weight and bias of its final linear layer make of the latents.

    Raises:
        ValueError: If there is no such layer, it computes something else, or something comes after it.
    """
    example = classifier.example(2)
    noise = torch.rand(example.shape, generator=torch.Generator().manual_seed(0)).to(example)
    last = classifier.final_linear
    with evaluating(classifier):
        latents, logits = latents_and_logits(classifier, noise)
        given = F.linear(latents, last.weight, last.bias)
    if given.shape != logits.shape or not torch.allclose(given, logits, rtol=1e-4, atol=1e-5):
        raise ValueError(
            f"Expected the linear layer '{classifier.final_linear_name}' to be the last, but its output is not the "
            "logits. Leave out what comes after it, such as a softmax or a second head, and what it does beside weight "
            "and bias, such as a cosine classifier's normalization."
        )
