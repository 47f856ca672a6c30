"""A classifier with a layer of its own put before one of its layers."""

from __future__ import annotations

from torch import nn

from lit_backdoor.models.base import Classifier
from lit_backdoor.models.enclosing import Enclosing

__all__ = ["Plugged"]


class Plugged(Enclosing):
    """A classifier whose features are transformed before one of its convolutions (NPD).

    What is put there is a 1x1 convolution without bias and a batch norm, the identity at the start: the logits are then
    the classifier's, but for rounding. The classifier itself is changed: ``layer`` becomes ``layer.1``, the plug is
    ``layer.0``.

    Args:
        classifier: The classifier.
        layer: Name of a convolution of it, as `layer_names` has it.

    Raises:
        ValueError: If there is no such layer, or it is no convolution.
    """

    def __init__(self, classifier: Classifier, layer: str) -> None:
        super().__init__(classifier)
        conv = classifier._layer(layer)
        if not isinstance(conv, nn.Conv2d):
            raise ValueError(f"Expected layer '{layer}' to be a Conv2d, got a {type(conv).__name__}.")
        mixing, norm = nn.Conv2d(conv.in_channels, conv.in_channels, 1, bias=False), nn.BatchNorm2d(conv.in_channels)
        nn.init.dirac_(mixing.weight)
        parent, _, name = layer.rpartition(".")
        plugged = nn.Sequential(nn.Sequential(mixing, norm).to(conv.weight), conv)
        setattr(classifier.net.get_submodule(parent), name, plugged)
        self.layer = layer

    @property
    def plug(self) -> nn.Module:
        """What was put before the layer."""
        return self.classifier.net.get_submodule(f"{self.layer}.0")
