"""The space that PGBD works in: the activations of one layer, and those of the whole root set."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from lit_backdoor.models import Classifier
from lit_backdoor.models.base import evaluating
from lit_backdoor.stages.base import Stage

__all__ = ["Stamp", "activations", "last_convolution", "root_activations"]

Stamp = Callable[[Tensor, Tensor], Tensor]


def last_convolution(classifier: Classifier) -> str | None:
    """Name the last convolution, before its shortcut is added; None for a net without any, such as a ViT."""
    try:
        [name] = classifier.last_layers(1, "conv")
    except ValueError:
        return None
    return name if isinstance(classifier.net.get_submodule(name), nn.Conv2d) else None


def activations(classifier: Classifier, layer: str | None, images: Tensor) -> tuple[Tensor, Tensor]:
    """Give the logits of images and their activations ``[B, ...]``, from one forward pass.

    Args:
        classifier: The suspect.
        layer: The layer whose output is the activation; None for the classifier's split.
        images: ``[B, C, H, W]`` in [0, 1].
    """
    if layer is not None:
        logits, taps = classifier.logits_and_taps(images, [layer])
        return logits, taps[layer]
    features = classifier.features(images)
    return classifier.head(features), features


@torch.no_grad()
def root_activations(
    stage: Stage, classifier: Classifier, layer: str | None, stamp: Stamp | None = None
) -> tuple[Tensor, Tensor]:
    """Give the activations of the root set in order, float32 ``[N, ...]``, and its labels, int64 ``[N]``.

    Args:
        stage: The stage that runs; every process goes over all images.
        classifier: The suspect; taken in eval mode.
        layer: The layer, as `activations` takes it.
        stamp: Puts a trigger on images, from them and their positions; None leaves them.
    """
    features, labels = [], []
    with evaluating(classifier), stage.trainer.precision_plugin.forward_context():
        for batch in stage.passes("root"):
            images = batch["image"] if stamp is None else stamp(batch["image"], batch["index"])
            features.append(activations(classifier, layer, images)[1][batch["valid"]].float())
            labels.append(batch["label"][batch["valid"]])
    return torch.cat(features), torch.cat(labels)
