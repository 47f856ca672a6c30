"""An encoder with a linear head as a classifier, for suspects trained by self-supervision."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from lit_backdoor.models.base import Classifier, evaluating
from lit_backdoor.models.encoder import Encoder

__all__ = ["WithHead"]


class WithHead(Classifier):
    """Classify the pooled output of an encoder by one linear layer; S_a is the encoder, S_b pooling and the layer.

    A backdoored encoder (BadEncoder, Jia et al. 2022) becomes a suspect that every defense takes. The normalization is
    the encoder's own.

    Args:
        encoder: From images in [0, 1] to maps ``[B, D, h, w]`` or embeddings ``[B, D]``.
        num_classes: Number of classes of the downstream task.
        input_size: Side of the images in pixels.

    Raises:
        ValueError: If the encoder gives something else than maps or embeddings.
    """

    def __init__(self, encoder: Encoder, num_classes: int = 10, input_size: int = 32) -> None:
        neutral = encoder.channels
        super().__init__(num_classes, input_size, (0.0,) * neutral, (1.0,) * neutral, channels_last=False)
        with evaluating(encoder):
            shape = list(encoder(torch.zeros(1, encoder.channels, input_size, input_size)).shape)
        if len(shape) not in (2, 4):
            raise ValueError(f"Expected an encoder that gives maps [B, D, h, w] or embeddings [B, D], got {shape}.")
        self.net: Any = nn.ModuleDict({"encoder": encoder, "fc": nn.Linear(shape[1], num_classes)})

    def features(self, images: Tensor) -> Tensor:
        """Give the encoder's output."""
        return cast(Tensor, self.net.encoder(self.normalize(images)))

    def head(self, features: Tensor) -> Tensor:
        """Give the logits of the pooled features."""
        return cast(Tensor, self.net.fc(features.mean((2, 3)) if features.ndim == 4 else features))
