"""The activations of one layer of a suspect, as the space that a defense works in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lit_backdoor.models import Classifier
from lit_backdoor.models.base import evaluating
from lit_backdoor.stages.base import Stage

__all__ = ["ActivationSpace", "Stamp"]

Stamp = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class ActivationSpace:
    """The activations of a suspect at one layer.

    Attributes:
        classifier: The suspect.
        layer: The layer whose output is the activation; None for the classifier's split.
        pooled: Whether maps ``[B, C, h, w]`` are averaged over their positions, to ``[B, C]``.
    """

    classifier: Classifier
    layer: str | None
    pooled: bool = False

    @classmethod
    def of(cls, classifier: Classifier, layer: str | None, pooled: bool) -> ActivationSpace:
        """Take the named layer; without a name the last convolution, before its shortcut is added.

        Where the net has no convolution, such as a ViT, it is the classifier's split.
        """
        return cls(classifier, layer or _last_convolution(classifier), pooled)

    @property
    def shape(self) -> torch.Size:
        """Shape of one image's activation."""
        with evaluating(self.classifier):
            return self(self.classifier.example())[1].shape[1:]

    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Give the logits of images ``[B, C, H, W]`` in [0, 1] and their activations, from one forward pass."""
        if self.layer is not None:
            logits, taps = self.classifier.logits_and_taps(images, [self.layer])
            found = taps[self.layer]
        else:
            found = self.classifier.features(images)
            logits = self.classifier.head(found)
        return logits, found.mean((2, 3)) if self.pooled and found.ndim == 4 else found

    def of_root(self, stage: Stage, stamp: Stamp | None = None) -> tuple[Tensor, Tensor]:
        """Give the activations of the root set in order, float32 ``[N, ...]``, and its labels, int64 ``[N]``.

        Args:
            stage: The stage that runs; every process goes over all images, with the suspect in eval mode.
            stamp: Puts a trigger on images, from them and their positions; None for clean images.
        """
        features, labels = [], []
        for batch in stage.passes("root", self.classifier):
            images = batch["image"] if stamp is None else stamp(batch["image"], batch["index"])
            features.append(self(images)[1][batch["valid"]].float())
            labels.append(batch["label"][batch["valid"]])
        return torch.cat(features), torch.cat(labels)


def _last_convolution(classifier: Classifier) -> str | None:
    try:
        [name] = classifier.last_layers(1, "conv")
    except ValueError:  # a net without any
        return None
    layers = [type(layer) for layer in classifier.net.modules()]
    if layers.count(nn.Conv2d) == 1 and layers.count(nn.Linear) > 1:  # an embedding of patches, as an MLP-Mixer's
        return None
    return name if isinstance(classifier.net.get_submodule(name), nn.Conv2d) else None
