"""What every classifier offers: a normalization of its own, a split into features and head, and taps."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from lit_backdoor.errors import check_statistics, one_of, unknown
from lit_backdoor.recipe import Recorded

__all__ = ["CIFAR_MEAN", "CIFAR_STD", "Classifier", "batch_norms", "evaluating"]

CIFAR_MEAN = (0.4914, 0.4822, 0.4465)
CIFAR_STD = (0.2470, 0.2435, 0.2616)
_LUMA = (0.299, 0.587, 0.114)  # shares of red, green and blue, as Pillow has them
_SHORTCUTS = {"downsample", "shortcut", "skip", "residual", "identity", "convshortcut"}


@contextmanager
def evaluating(net: nn.Module) -> Iterator[None]:
    """Hold every module in eval mode without gradients, then give each its own mode back."""
    modes = [(module, module.training) for module in net.modules()]
    try:
        for module, _ in modes:
            module.training = False
        with torch.no_grad():
            yield
    finally:
        for module, mode in modes:
            module.training = mode


def batch_norms(net: nn.Module) -> list[nn.modules.batchnorm._BatchNorm]:
    """Find the batch norms of a net, whose mode says whether they use and update the batch's statistics."""
    return [module for module in net.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]


class Classifier(Recorded, nn.Module, ABC):
    """An image classifier, cut in two: ``features`` (S_a) and ``head`` (S_b), with ``head(features(x)) == f(x)``.

    Images are float ``[B, C, H, W]`` in [0, 1]; the normalization is part of the classifier. Layers are named as
    in `net`.

    Args:
        num_classes: Number of classes.
        input_size: Side of the images in pixels.
        mean: Mean of each channel, taken off the images.
        std: Standard deviation of each channel, by which they are then divided.
        channels_last: Whether images and weights are laid out channels last, which is faster for convolutions.

    Raises:
        ValueError: If ``mean`` and ``std`` are not of one length or not finite, or a ``std``, the number of classes or
            the size is not positive.
    """

    net: nn.Module

    def __init__(
        self,
        num_classes: int,
        input_size: int,
        mean: tuple[float, ...] = CIFAR_MEAN,
        std: tuple[float, ...] = CIFAR_STD,
        channels_last: bool = True,
    ) -> None:
        super().__init__()
        if not all(isinstance(value, int) and value >= 1 for value in (num_classes, input_size)):
            raise ValueError(
                "Expected num_classes and input_size as whole numbers of at least 1, got "
                f"num_classes={num_classes!r} and input_size={input_size!r}."
            )
        self.num_classes = num_classes
        self.input_size = input_size
        self.mean, self.std = check_statistics(mean, std)
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self._mean: Tensor
        self._std: Tensor
        self.register_buffer("_mean", torch.tensor(self.mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("_std", torch.tensor(self.std).view(-1, 1, 1), persistent=False)

    @abstractmethod
    def features(self, images: Tensor) -> Tensor:
        """Give the output of the trunk S_a, ``[B, ...]``."""

    @abstractmethod
    def head(self, features: Tensor) -> Tensor:
        """Give the logits ``[B, num_classes]`` for the trunk's output. Leaves its argument as it is."""

    def forward(self, images: Tensor) -> Tensor:
        """Give the logits, ``[B, num_classes]``."""
        return self.head(self.features(images))

    def logits(self, images: Tensor) -> Tensor:
        """Give the logits, ``[B, num_classes]``."""
        return cast(Tensor, self(images))

    def normalize(self, images: Tensor) -> Tensor:
        """Bring images from [0, 1] to what `net` takes; for a net of one channel, RGB becomes gray (ITU-R BT.601).

        Raises:
            ValueError: If they have not as many channels as there are means.
        """
        if images.ndim == 4 and images.shape[1] == 3 and len(self.mean) == 1:
            images = (images * images.new_tensor(_LUMA).view(-1, 1, 1)).sum(1, keepdim=True)
        if images.ndim != 4 or images.shape[1] != len(self.mean):
            raise ValueError(
                f"Expected images [B, {len(self.mean)}, H, W], as the classifier's mean has it, got "
                f"{list(images.shape)}. Give one mean and one std per channel."
            )
        return ((images - self._mean) / self._std).contiguous(memory_format=self.memory_format)

    def layer_names(self) -> list[str]:
        """List the names of the layers of `net`, as `taps` takes them."""
        return [name for name, _ in self.net.named_modules() if name]

    def taps(self, images: Tensor, names: Iterable[str]) -> dict[str, Tensor]:
        """Give the outputs of layers, from one forward pass; gradients flow through them.

        A layer that runs more than once gives its last output.

        Raises:
            ValueError: If a layer is not known, did not run, or its output is not a tensor.
        """
        return self.logits_and_taps(images, names)[1]

    def logits_and_taps(self, images: Tensor, names: Iterable[str]) -> tuple[Tensor, dict[str, Tensor]]:
        """Give the logits and the outputs of layers, as `taps` does, from the same forward pass.

        Raises:
            ValueError: If a layer is not known, did not run, or its output is not a tensor.
        """
        layers = {name: self._layer(name) for name in names}
        outputs: dict[str, Tensor] = {}

        def keep(name: str, output: Any) -> None:
            if not isinstance(output, Tensor):
                raise ValueError(f"Expected a layer whose output is a tensor, got '{name}': {type(output).__name__}.")
            outputs[name] = output.clone()  # the next layer may work in place

        handles = [
            layer.register_forward_hook(lambda _m, _i, output, name=name: keep(name, output))
            for name, layer in layers.items()
        ]
        try:
            logits = cast(Tensor, self(images))
        finally:
            for handle in handles:
                handle.remove()
        silent = [name for name in layers if name not in outputs]
        if silent:
            raise ValueError(f"Expected layers that run in a forward pass, but {silent} did not.")
        return logits, {name: outputs[name] for name in layers}

    def last_layers(self, k: int, kind: Literal["conv", "block"] = "conv") -> list[str]:
        """Name the last ``k`` layers in forward order, the last first.

        Args:
            k: How many; all of them where there are fewer.
            kind: ``"conv"``: convolutions but for 1x1 shortcuts (in transformers, which have but a patch
                embedding, blocks); ``"block"``: residual, dense or transformer blocks.

        Raises:
            ValueError: If ``k`` is not positive, ``kind`` is not known or there is no such layer.
        """
        if k < 1:
            raise ValueError(f"Expected at least one layer, got k={k}.")
        one_of("kind of layer", kind, ("conv", "block"))
        convs = {name for name, layer in self.net.named_modules() if _is_conv(name, layer)}
        blocks = set(_blocks(self.net))
        is_transformer = any("attention" in type(layer).__name__.lower() for layer in self.net.modules())
        wanted = blocks if kind == "block" or (is_transformer and len(convs) <= len(blocks)) else convs
        if not wanted:
            raise ValueError(f"Expected a net with layers of kind '{kind}', got {type(self.net).__name__}.")
        return self._run_order(wanted)[::-1][:k]

    @property
    def final_linear_name(self) -> str:
        """Name of the linear layer that gives the logits.

        Raises:
            ValueError: If there is none.
        """
        layers: list[tuple[str, nn.Module]] = list(self.net.named_modules())
        for name, layer in reversed(layers):
            if isinstance(layer, nn.Linear) and layer.out_features == self.num_classes:
                return name
        raise ValueError(
            f"Expected {type(self.net).__name__} to hold a linear layer with {self.num_classes} outputs, got none."
        )

    @property
    def final_linear(self) -> nn.Linear:
        """The linear layer that gives the logits."""
        return cast(nn.Linear, self.net.get_submodule(self.final_linear_name))

    def example(self, batch: int = 1) -> Tensor:
        """Give black images ``[batch, C, input_size, input_size]`` on the classifier's device."""
        return self._mean.new_zeros(batch, len(self.mean), self.input_size, self.input_size)

    def _layer(self, name: str) -> nn.Module:
        layers: dict[str, nn.Module] = dict(self.net.named_modules())
        if not name or name not in layers:
            raise unknown("layer", name, layers.keys() - {""})
        return layers[name]

    def _run_order(self, names: Iterable[str]) -> list[str]:
        """Order layers by when they last run; leaves out those that do not run."""
        ran: dict[str, None] = {}

        def note(name: str) -> None:
            ran.pop(name, None)
            ran[name] = None

        handles = [self._layer(name).register_forward_hook(lambda _m, _i, _o, name=name: note(name)) for name in names]
        try:
            with evaluating(self):
                self(self.example())
        finally:
            for handle in handles:
                handle.remove()
        return list(ran)


def _is_conv(name: str, layer: nn.Module) -> bool:
    if not isinstance(layer, nn.Conv2d):
        return False
    return layer.kernel_size != (1, 1) or not _SHORTCUTS.intersection(name.lower().split("."))


def _blocks(net: nn.Module, prefix: str = "") -> Iterator[str]:
    """Find the outermost compound modules that stand in a list, looking through stages, which are lists of blocks."""
    for name, child in net.named_children():
        path = f"{prefix}.{name}" if prefix else name
        plain = type(child) in (nn.Sequential, nn.ModuleList, nn.ModuleDict) or type(child).__name__.endswith("Stage")
        compound = any(child.children()) and any(weight.dim() > 1 for weight in child.parameters())
        if isinstance(net, nn.Sequential | nn.ModuleList) and compound and not plain:
            yield path
        else:
            yield from _blocks(child, path)
