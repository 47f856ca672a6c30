"""Nets of a library as frozen encoders, cut at a layer."""

from __future__ import annotations

from abc import abstractmethod

import timm
import torch
from torch import Tensor, nn
from torchvision.models import get_model, list_models

from lit_backdoor.errors import unknown
from lit_backdoor.models.base import evaluating
from lit_backdoor.models.encoder import Encoder
from lit_backdoor.models.split import features_at
from lit_backdoor.recipe import rebuilding
from lit_backdoor.weights import load_weights

__all__ = ["CutEncoder", "TimmEncoder", "TorchvisionEncoder"]

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class CutEncoder(Encoder):
    """A net up to one of its layers, frozen in eval mode; the modules behind the layer are dropped.

    A subclass makes the net in `make_net`.

    Args:
        layer: Name of the layer whose output is the features.
        mean: Mean of each channel, subtracted from the images.
        std: Standard deviation of each channel, by which they are then divided.

    Raises:
        ValueError: If the net has no such layer.
    """

    def __init__(
        self, layer: str, mean: tuple[float, ...] = IMAGENET_MEAN, std: tuple[float, ...] = IMAGENET_STD
    ) -> None:
        super().__init__()
        # Of a bundle's net nothing is filled but what its layer needs: the rest may be far larger than the weights.
        device = torch.device("meta" if rebuilding() else "cpu")
        with device:
            net = self.make_net()
        names = [name for name, _ in net.named_modules() if name]
        if layer not in names:
            raise unknown(f"layer of {type(net).__name__}", layer, names)
        _drop_unused(net, _run_until(net, layer, torch.zeros(1, len(mean), 64, 64, device=device)))
        if rebuilding():
            net._apply(lambda weight: torch.empty(weight.shape, dtype=weight.dtype))  # type: ignore[no-untyped-call]
        self.net, self.layer, self.channels = net.requires_grad_(False), layer, len(mean)
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1), persistent=False)
        self.eval()

    @abstractmethod
    def make_net(self) -> nn.Module:
        """Make the net, with its trained weights unless a bundle is being rebuilt, which brings them."""

    def forward(self, images: Tensor) -> Tensor:
        """Give the layer's output."""
        return features_at(self.net, self.layer, (images - self.mean) / self.std)

    def train(self, mode: bool = True) -> CutEncoder:
        """Stay in eval mode."""
        return super().train(False)


class LibraryEncoder(CutEncoder):
    """An architecture of a library up to a layer; a subclass says how the library makes it, in `architecture`.

    Args:
        name: Name of the architecture.
        layer: Name of the layer whose output is the features.
        weights: File of weights; None downloads the library's.
        mean: Mean of each channel.
        std: Standard deviation of each channel.

    Raises:
        ValueError: If the architecture or the layer is unknown, or the weights do not fit.
    """

    def __init__(
        self,
        name: str,
        layer: str,
        weights: str | None = None,
        mean: tuple[float, ...] = IMAGENET_MEAN,
        std: tuple[float, ...] = IMAGENET_STD,
    ) -> None:
        self.source = (name, weights)
        super().__init__(layer, mean, std)

    @abstractmethod
    def architecture(self, name: str, download: bool) -> nn.Module:
        """Make the architecture, with the library's weights where they are to be downloaded."""

    def make_net(self) -> nn.Module:
        """Make the library's net."""
        name, weights = self.source
        net = self.architecture(name, download=weights is None and not rebuilding())
        if weights is not None and not rebuilding():
            load_weights(net, weights)
        return net


class TimmEncoder(LibraryEncoder):
    """An architecture of timm up to a layer, such as ``resnet18.a1_in1k``. Arguments as in `LibraryEncoder`."""

    def architecture(self, name: str, download: bool) -> nn.Module:
        """Make timm's net."""
        plain = name.split(".")[0]
        if not timm.is_model(plain):
            raise unknown("architecture", name, timm.list_models())
        net: nn.Module = timm.create_model(name if download else plain, pretrained=download)
        return net


class TorchvisionEncoder(LibraryEncoder):
    """An architecture of torchvision up to a layer; by default the VGG-19 of style transfer up to ``relu2_1``.

    Arguments as in `LibraryEncoder`.
    """

    def __init__(
        self,
        name: str = "vgg19",
        layer: str = "features.6",
        weights: str | None = None,
        mean: tuple[float, ...] = IMAGENET_MEAN,
        std: tuple[float, ...] = IMAGENET_STD,
    ) -> None:
        super().__init__(name, layer, weights, mean, std)

    def architecture(self, name: str, download: bool) -> nn.Module:
        """Make torchvision's net."""
        if name not in list_models():
            raise unknown("architecture", name, list_models())
        net: nn.Module = get_model(name, weights="DEFAULT" if download else None)
        return net


def _run_until(net: nn.Module, layer: str, images: Tensor) -> set[nn.Module]:
    """Find the modules that run before the layer's output is there."""
    ran: set[nn.Module] = set()
    handles = [module.register_forward_pre_hook(lambda module, _: ran.add(module)) for module in net.modules()]
    try:
        with evaluating(net):
            features_at(net, layer, images)
    finally:
        for handle in handles:
            handle.remove()
    return ran


def _drop_unused(net: nn.Module, used: set[nn.Module]) -> None:
    """Put an identity in place of every module of which nothing is used."""
    for name, child in net.named_children():
        if used.isdisjoint(child.modules()):
            setattr(net, name, nn.Identity())
        else:
            _drop_unused(child, used)
