"""timm's architectures by name, with stems for small images."""

from __future__ import annotations

from typing import Any, cast

import timm
from timm.layers.classifier import ClassifierHead
from timm.models.densenet import DenseNet
from timm.models.resnet import ResNet
from timm.models.resnetv2 import ResNetV2
from timm.models.vgg import VGG, cfgs
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from lit_backdoor.errors import unknown
from lit_backdoor.models.base import CIFAR_MEAN, CIFAR_STD, Classifier, evaluating
from lit_backdoor.models.split import check_layer, check_split, features_at, head_from
from lit_backdoor.recipe import rebuilding

__all__ = ["TimmClassifier"]

SMALL = 64  # images up to this side get the small-image stem
_VITS = ("vit_", "deit_", "deit3_")  # how the names of ViTs begin whose width and size can be set
_STEMS = {
    ResNet: ("conv1", "maxpool"),
    ResNetV2: ("stem.conv", "stem.pool"),
    DenseNet: ("features.conv0", "features.pool0"),
}


class TimmClassifier(Classifier):
    """A timm architecture; images up to 64 px get a 3x3 convolution of stride 1 and no pooling as their stem.

    S_a ends where timm's ``forward_features`` does (ResNet-18: ``layer4``, before pooling; PreAct: after the last norm;
    DenseNet and VGG: ``features``); for a ViT it is the token that is classified, before the last norm, ``[B, D]``.
    At small sizes a VGG ends in one linear layer, a ViT has patches of 4 px (8 px at 64), and other architectures
    keep their stem with stride 1. A ResNet starts from torch's initialization, not timm's. Nothing is downloaded
    unless ``pretrained`` is set.

    Args:
        name: Name of the architecture in timm.
        num_classes: Number of classes.
        input_size: Side of the images in pixels.
        channels: Base width: that of the first stage of a ResNet or VGG (64), the growth rate of a DenseNet (32),
            the embedding of a ViT; None for the architecture's own.
        mean: Mean of each channel.
        std: Standard deviation of each channel.
        pretrained: Whether to download timm's weights; a replaced stem takes the middle of theirs.
        split: Name of the layer that ends S_a; None for the place above.
        channels_last: Whether images and weights are laid out channels last.
        net_args: Further arguments of the architecture, such as ``{"depth": 6, "num_heads": 8}``.
        whole_batch: As `WrappedClassifier` has it, for a net with a ``split``.

    Raises:
        ValueError: If the name is unknown or a width cannot be had.
    """

    def __init__(
        self,
        name: str = "resnet18",
        num_classes: int = 10,
        input_size: int = 32,
        channels: int | None = None,
        mean: tuple[float, ...] = CIFAR_MEAN,
        std: tuple[float, ...] = CIFAR_STD,
        pretrained: bool = False,
        split: str | None = None,
        channels_last: bool = True,
        net_args: dict[str, Any] | None = None,
        whole_batch: bool = False,
    ) -> None:
        super().__init__(num_classes, input_size, mean, std, channels_last)
        pretrained = pretrained and not rebuilding()  # an untrusted bundle must not start a download
        _check_name(name, pretrained)
        if channels is not None and (channels < 2 or channels % 2 or pretrained):
            raise ValueError(
                f"Expected channels to be None or an even width for a net without pretrained weights, got {channels}."
            )
        args: dict[str, Any] = {"num_classes": num_classes, "in_chans": len(mean), "pretrained": pretrained}
        args |= _width_args(name, channels) | _size_args(name, input_size) | _free_args(net_args or {})
        if name in _VGGS and input_size <= SMALL and rebuilding():
            args["mlp_ratio"] = 0.01  # its layers of 120 million weights are replaced, and need not be filled first
        self.net = _build(name, channels, args)
        # the weights come from elsewhere when the classifier is made again
        self._init_args |= {"name": name.split(".")[0], "pretrained": False}
        if not pretrained and isinstance(self.net, ResNet | ResNetV2):
            _start_as_torch(self.net)
        _plain_head(self.net, num_classes)
        if input_size <= SMALL or (channels and isinstance(self.net, ResNet)):
            _replace_stem(self.net, small=input_size <= SMALL, pretrained=pretrained)
        if input_size <= SMALL and isinstance(self.net, VGG):
            _small_vgg_head(self.net, num_classes)
        self.net.to(memory_format=self.memory_format)
        self.split, self.whole_batch = split, whole_batch
        self._one_token = _classifies_one_token(self.net)
        if split is not None and rebuilding():  # checked when written; a pass on an untrusted size may take hours
            check_layer(self.net, split)
        elif split is not None:
            self.whole_batch = check_split(self.net, split, (len(mean), input_size, input_size))
            self._init_args["whole_batch"] = self.whole_batch
        if not isinstance(self.net, ResNet | ResNetV2 | VGG | DenseNet) and not rebuilding():
            self._try(name)

    def _try(self, name: str) -> None:
        """Classify a black image: many architectures are for images of one size, and say so only then."""
        try:
            with evaluating(self):
                self(self.example())
        except (AssertionError, RuntimeError, ValueError, IndexError) as error:
            raise ValueError(
                f"Expected an architecture for images of {self.input_size}x{self.input_size}, but '{name}' failed on "
                f"one: {str(error).removesuffix('.')}. Set input_size to a size that it takes, or net_args, such as "
                f"{{img_size: {self.input_size}}}."
            ) from error

    def features(self, images: Tensor) -> Tensor:
        """Give the trunk's output: maps ``[B, C, h, w]``, or the classified token ``[B, D]`` of a ViT."""
        inputs = self.normalize(images)
        if self.split is not None:
            return features_at(self.net, self.split, inputs)
        if not self._one_token:
            return cast(Tensor, cast(Any, self.net).forward_features(inputs))
        found = cast(Any, self.net).forward_intermediates(
            inputs, indices=1, return_prefix_tokens=True, output_fmt="NLC", intermediates_only=True
        )[0]
        maps, prefix = found if isinstance(found, tuple) else (found, None)  # a net may have no prefix tokens
        return cast(Tensor, prefix[:, 0] if cast(Any, self.net).global_pool == "token" else maps.mean(1))

    def head(self, features: Tensor) -> Tensor:
        """Give the logits."""
        net = cast(Any, self.net)
        if self.split is not None:
            dummy = self.example(len(features) if self.whole_batch else 1)
            return head_from(self.net, self.split, features, self.normalize(dummy))
        if self._one_token:
            return cast(Tensor, net.head(net.head_drop(net.fc_norm(net.norm(features)))))
        return cast(Tensor, net.forward_head(features))

    def forward(self, images: Tensor) -> Tensor:
        """Give the logits, ``[B, num_classes]``."""
        if self.split is not None:
            return cast(Tensor, self.net(self.normalize(images)))
        return super().forward(images)


def _start_as_torch(net: nn.Module) -> None:
    """Initialize every layer as torch does: timm's start, meant for long trainings, costs short ones their accuracy."""
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Linear | nn.modules.batchnorm._BatchNorm):
            module.reset_parameters()


_VGGS = {f"{name}{end}" for name in cfgs for end in ("", "_bn")}


def _check_name(name: str, pretrained: bool) -> None:
    if ":" in name or "/" in name:
        raise ValueError(f"Expected the name of an architecture, got '{name}'. Addresses are not followed.")
    if not timm.is_model(name) or ("." in name and not pretrained):
        raise unknown("architecture", name, timm.list_models())


def _width_args(name: str, channels: int | None) -> dict[str, Any]:
    """Give the arguments by which each family sets its width."""
    if channels is None or name in _VGGS:
        return {}
    stages = tuple(channels * factor for factor in (1, 2, 4, 8))
    if name.startswith("resnetv2_"):
        expansion = 1 if name.startswith(("resnetv2_18", "resnetv2_34")) else 4
        return {"channels": tuple(stage * expansion for stage in stages), "stem_chs": channels}
    if name.startswith("resnet"):  # the deep stem is the one whose width can be set; it is replaced afterwards
        return {"channels": stages, "stem_type": "deep", "stem_width": channels // 2}
    if name.startswith("densenet"):
        return {"growth_rate": channels}
    if name.startswith(_VITS):
        return {"embed_dim": channels, "num_heads": channels // 32 if channels % 32 == 0 else 1}
    raise ValueError(
        f"Expected channels=None for '{name}': widths can be set for resnet*, resnetv2_*, densenet*, vgg*, vit_*, "
        "deit_* and deit3_*. Other arguments of an architecture go into net_args."
    )


def _size_args(name: str, input_size: int) -> dict[str, Any]:
    if not name.startswith(_VITS):
        return {}
    return {"img_size": input_size} | ({"patch_size": 8 if input_size == SMALL else 4} if input_size <= SMALL else {})


def _free_args(net_args: dict[str, Any]) -> dict[str, Any]:
    """Refuse what has an argument of its own or would read files."""
    taken = {"num_classes", "in_chans", "pretrained", "checkpoint_path", "cache_dir"}
    bad = sorted(key for key in net_args if key in taken or key.startswith(("pretrained_", "weights")))
    if bad:
        raise ValueError(f"Expected net_args to shape the net only, got {bad}.")
    return dict(net_args)


def _build(name: str, channels: int | None, args: dict[str, Any]) -> nn.Module:
    try:
        if channels is not None and name in _VGGS:
            return _narrow_vgg(name, channels, args)
        return timm.create_model(name, **args)
    except TypeError as error:
        raise ValueError(f"Expected arguments that timm's '{name}' takes: {error}.") from error


def _narrow_vgg(name: str, channels: int, args: dict[str, Any]) -> nn.Module:
    """Build a VGG of another width: its layer list holds the widths themselves."""
    layers = [layer if isinstance(layer, str) else layer * channels // 64 for layer in cfgs[name.split("_")[0]]]
    norm = nn.BatchNorm2d if name.endswith("_bn") else None
    given = {key: value for key, value in args.items() if key != "pretrained"}
    return VGG(layers, norm_layer=norm, **given)


def _plain_head(net: Any, num_classes: int) -> None:
    """Make the last layer a linear one where it is a 1x1 convolution."""
    if not isinstance(net, ResNetV2) or not isinstance(net.head.fc, nn.Conv2d):
        return
    old = net.head.fc.state_dict()
    net.head = ClassifierHead(net.num_features, num_classes, pool_type="avg", drop_rate=net.drop_rate)
    net.head.fc.load_state_dict({"weight": old["weight"].flatten(1), "bias": old["bias"]})


def _replace_stem(net: nn.Module, small: bool, pretrained: bool) -> None:
    """Put one convolution in place of the stem; for small images 3x3 with stride 1, and no pooling."""
    first, pool = next((names for family, names in _STEMS.items() if isinstance(net, family)), ("", ""))
    layers: dict[str, nn.Module] = dict(net.named_modules())
    if not first or first not in layers:
        if not isinstance(net, VGG | VisionTransformer):
            _unstride(net)
        return
    old = layers[first]
    conv = next(layer for layer in old.modules() if isinstance(layer, nn.Conv2d))
    width = [layer for layer in old.modules() if isinstance(layer, nn.Conv2d)][-1].out_channels
    side, stride = (3, 1) if small else (7, 2)
    new = type(conv)(
        conv.in_channels, width, kernel_size=side, stride=stride, padding=side // 2, bias=conv.bias is not None
    )
    # as each architecture initializes its own
    nn.init.kaiming_normal_(new.weight, mode="fan_in" if isinstance(net, DenseNet) else "fan_out", nonlinearity="relu")
    if pretrained and conv.weight.shape[:2] == new.weight.shape[:2]:
        margin = (conv.kernel_size[0] - side) // 2
        new.weight.data.copy_(conv.weight.data[:, :, margin : margin + side, margin : margin + side])
    net.set_submodule(first, new)
    if small:
        net.set_submodule(pool, nn.Identity())


def _unstride(net: nn.Module) -> None:
    """Let the first convolution of another architecture keep the size, where it halves it."""
    conv = next((layer for layer in net.modules() if isinstance(layer, nn.Conv2d)), None)
    if conv is not None and conv.stride == (2, 2):
        conv.stride = (1, 1)


def _small_vgg_head(net: Any, num_classes: int) -> None:
    """Classify the pooled maps by one linear layer instead of three, of which the first would see 7x7 positions."""
    width = next(layer.out_channels for layer in reversed(net.features) if isinstance(layer, nn.Conv2d))
    net.pre_logits = nn.Identity()
    net.num_features = net.head_hidden_size = width
    net.head = ClassifierHead(width, num_classes, pool_type="avg", drop_rate=net.drop_rate)
    nn.init.normal_(net.head.fc.weight, 0, 0.01)
    nn.init.zeros_(net.head.fc.bias)


def _classifies_one_token(net: nn.Module) -> bool:
    """Tell a ViT whose last norm may come after the pooling: on the class token, or where pooling goes first."""
    if not isinstance(net, VisionTransformer) or net.attn_pool is not None:
        return False
    if type(net).forward_head is not VisionTransformer.forward_head:  # a distilled DeiT's classifies two tokens
        return False
    pools_first = isinstance(net.norm, nn.Identity) and not net.pool_include_prefix
    return net.global_pool == "token" or (net.global_pool == "avg" and pools_first)
