"""Nets that are not ours: any module, cut at a layer by name."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from lit_backdoor.models.base import Classifier
from lit_backdoor.models.split import check_layer, check_split, features_at, head_from, lay_out
from lit_backdoor.recipe import load_factory, rebuilding

__all__ = ["ForeignClassifier", "WrappedClassifier", "wrap_classifier"]


class WrappedClassifier(Classifier):
    """A net object as a classifier. It cannot be written into a bundle; `ForeignClassifier` can.

    Args:
        net: Normalized images to logits; a LightningModule is called by its forward.
        split: Name of the layer that ends S_a; everything behind it must follow from its output.
        num_classes: Number of classes.
        input_size: Side of the images in pixels.
        mean: Mean of each channel; zeros if the net normalizes images itself.
        std: Standard deviation of each channel; ones if the net normalizes images itself.
        channels_last: Whether images and weights are laid out channels last; a net that flattens by ``view`` cannot
            run so and is not.
        whole_batch: Whether `head` runs the layers before the split on as many images as there are features, for a net
            that reads the batch's size off its input. It is found out, unless a bundle is rebuilt.

    Raises:
        ValueError: If the net cannot be cut there, is compiled, its weights are not float32 or not finite, or its
            output is not ``[B, num_classes]``.
    """

    def __init__(
        self,
        net: nn.Module,
        split: str,
        num_classes: int,
        input_size: int,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        channels_last: bool = True,
        whole_batch: bool = False,
    ) -> None:
        super().__init__(num_classes, input_size, mean, std, channels_last)
        _check_net(net)
        self.net = net
        self.split = split
        self.whole_batch = whole_batch
        shape = (len(mean), input_size, input_size)
        if rebuilding():  # it was checked when it was written, and a pass on an untrusted size may take hours
            check_layer(net, split)
            net.to(memory_format=self.memory_format)
            return
        self.memory_format = lay_out(net, shape, self.memory_format)
        self.whole_batch = check_split(net, split, shape, outputs=num_classes)
        self._init_args["channels_last"] = self.memory_format == torch.channels_last
        self._init_args["whole_batch"] = self.whole_batch

    def features(self, images: Tensor) -> Tensor:
        """Give the output of the layer `split`."""
        return features_at(self.net, self.split, self.normalize(images))

    def head(self, features: Tensor) -> Tensor:
        """Give the net's output with that of the layer `split` replaced."""
        dummy = self.example(len(features) if self.whole_batch else 1)
        return head_from(self.net, self.split, features, self.normalize(dummy))

    def forward(self, images: Tensor) -> Tensor:
        """Give the logits, ``[B, num_classes]``."""
        return cast(Tensor, self.net(self.normalize(images)))


class ForeignClassifier(WrappedClassifier):
    """A net made by a function or class of another package, named by its dotted path.

    While a bundle is rebuilt only torchvision's model builders and what the user trusts are called.

    Args:
        factory: Dotted path, such as ``"torchvision.models.mobilenet_v3_small"``.
        factory_args: Its arguments; the number of classes is among them.
        split: Name of the layer that ends S_a.
        num_classes: Number of classes.
        input_size: Side of the images in pixels.
        mean: Mean of each channel.
        std: Standard deviation of each channel.
        channels_last: Whether images and weights are laid out channels last.
        whole_batch: As `WrappedClassifier` has it.

    Raises:
        ValueError: If the path leads nowhere or its result is not a net, and as `WrappedClassifier` does.
    """

    def __init__(
        self,
        factory: str,
        factory_args: dict[str, Any],
        split: str,
        num_classes: int,
        input_size: int,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        channels_last: bool = True,
        whole_batch: bool = False,
    ) -> None:
        # An untrusted bundle must not start a download of weights; its own come anyway.
        kept = {k: v for k, v in factory_args.items() if not (rebuilding() and k.startswith(("weights", "pretrained")))}
        net = load_factory(factory)(**kept)
        if not isinstance(net, nn.Module):
            raise ValueError(f"Expected '{factory}' to make a torch.nn.Module, got {type(net).__name__}.")
        super().__init__(net, split, num_classes, input_size, mean, std, channels_last, whole_batch)


def wrap_classifier(
    net: nn.Module,
    *,
    split: str,
    num_classes: int,
    input_size: int,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    recipe: dict[str, Any] | None = None,
) -> WrappedClassifier:
    """Make a classifier of a net object; the object itself is used, not a copy.

    Args:
        net: Normalized images to logits.
        split: Name of the layer that ends S_a.
        num_classes: Number of classes.
        input_size: Side of the images in pixels.
        mean: Mean of each channel.
        std: Standard deviation of each channel.
        recipe: How to make such a net, ``{"class_path": ..., "init_args": {...}}``, without which the classifier cannot
            be written into a bundle.

    Raises:
        ValueError: As `ForeignClassifier` does, and if the recipe makes a net with other weights.
    """
    if recipe is None:
        return WrappedClassifier(net, split, num_classes, input_size, mean, std)
    if not isinstance(recipe, dict) or not isinstance(recipe.get("class_path"), str):
        raise ValueError(f"Expected a recipe {{'class_path': …, 'init_args': {{…}}}} of the net, got {recipe!r:.200}.")
    path, args = recipe["class_path"], recipe.get("init_args") or {}
    classifier = ForeignClassifier(path, args, split, num_classes, input_size, mean, std)
    shapes, made = ({key: value.shape for key, value in part.state_dict().items()} for part in (net, classifier.net))
    if shapes != made:
        odd = sorted(key for key in shapes.keys() | made.keys() if shapes.get(key) != made.get(key))
        raise ValueError(f"Expected '{path}' to make a net like the given one, but these weights differ: {odd[:8]}.")
    _check_net(net)
    net.to(memory_format=classifier.memory_format)
    check_split(net, split, (len(mean), input_size, input_size), outputs=num_classes)
    classifier.net = net
    return classifier


def _check_net(net: nn.Module) -> None:
    if not isinstance(net, nn.Module):
        raise ValueError(f"Expected a torch.nn.Module, got {type(net).__name__}. Give the net itself, not a function.")
    if any(type(module).__name__ == "OptimizedModule" for module in net.modules()):
        raise ValueError(
            "Expected a net that is not compiled, since hooks of compiled layers do not run: give the net that "
            "torch.compile was given, or its _orig_mod, which has the same weights."
        )
    for weight in net.parameters():
        # Lightning's 64-true sets the default type while nets are built, and converts them all afterwards
        if weight.is_floating_point() and weight.dtype not in (torch.float32, torch.get_default_dtype()):
            raise ValueError(f"Expected float32 weights, got {weight.dtype}: call net.float() first.")
    broken = [name for name, value in net.state_dict().items() if not value.isfinite().all()]
    if broken:
        raise ValueError(
            f"Expected finite weights, but {len(broken)} tensors of the net hold NaN or infinity, such as "
            f"'{broken[0]}'. Train it anew or take an earlier checkpoint."
        )
