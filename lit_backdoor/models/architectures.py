"""Which architecture of timm or torchvision weights belong to: found by their names, decided by their shapes."""

from __future__ import annotations

import functools
import hashlib
import json
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, cast

import timm
import torch
import torchvision
from torch import Tensor, nn

from lit_backdoor.errors import unknown

__all__ = ["Architecture", "find_architectures", "make_net", "signature", "statistics_of", "tabulate"]

_IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_PROBE = 13  # a number of classes that no architecture has by itself
_LIBRARIES = ("timm", "torchvision")


@dataclass(frozen=True)
class Architecture:
    """An architecture and what the weights say of it.

    Attributes:
        name: ``timm:NAME`` or ``torchvision:NAME``.
        classes: Number of classes.
        channels: Channels of the images.
        size: Side of the images in pixels.
        args: Arguments of the builder.
    """

    name: str
    classes: int
    channels: int
    size: int
    args: dict[str, Any]


def signature(names: Iterable[str]) -> str:
    """Hash the names of a net's weights; counts of batches, which old files lack, are left out."""
    counted = sorted(name for name in names if not name.endswith("num_batches_tracked"))
    return hashlib.sha256("\n".join(counted).encode()).hexdigest()[:10]


def tabulate() -> dict[str, str]:
    """Group all architectures by the signature of their weights' names; takes minutes, and is kept in a file."""
    table: dict[str, list[str]] = {}
    timms = [f"timm:{name}" for name in timm.list_models()]
    for name in [*timms, *(f"torchvision:{n}" for n in torchvision.models.list_models(module=torchvision.models))]:
        try:
            table.setdefault(signature(make_net(name).state_dict()), []).append(name)
        except (RuntimeError, TypeError, ValueError, AssertionError, ImportError):  # needs arguments or a package
            continue
    return {key: " ".join(names) for key, names in sorted(table.items())}


def make_net(name: str, device: str = "meta", **args: Any) -> nn.Module:
    """Make a net of timm or torchvision without weights.

    Raises:
        ValueError: If there is no such library or architecture.
    """
    library, _, model = name.partition(":")
    if library not in _LIBRARIES:
        raise unknown("library", library, _LIBRARIES)
    known = timm.list_models() if library == "timm" else torchvision.models.list_models(module=torchvision.models)
    if model not in known:
        raise unknown(f"architecture of {library}", model, known)
    options = {**args, **({"weights": None} if library == "torchvision" else {})}
    build = timm.create_model if library == "timm" else torchvision.models.get_model
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with torch.device(device):
                return cast(nn.Module, build(model, **options))
        except NotImplementedError:  # torchvision's RegNets read numbers off tensors that they make
            return cast(nn.Module, build(model, **options))


def find_architectures(
    state: Mapping[str, Tensor], name: str | None = None, size: int | None = None
) -> list[Architecture]:
    """List the architectures whose weights have these names and shapes.

    Args:
        state: The weights, by the net's own names.
        name: The one that is asked for; None for all that are known.
        size: Side of the images, if it is known.
    """
    names = [name] if name else json.loads(_table().read_text()).get(signature(state), "").split()
    return [found for each in names if (found := _fit(each, state, size)) is not None]


def _table() -> Any:
    return files("lit_backdoor.models") / "architectures.json"


def _fit(name: str, state: Mapping[str, Tensor], size: int | None) -> Architecture | None:
    """Read classes, channels and size off the weights that may differ; None if others do."""
    args: dict[str, Any] = {}
    own = _native_size(name)
    for _ in range(3):  # each pass may learn the channels or the size
        wanted = _shapes(name, num_classes=_PROBE, **args)
        if signature(wanted) != signature(state):
            return None
        other = {key: shape for key, shape in wanted.items() if key in state and tuple(state[key].shape) != shape}
        heads = {k: s for k, s in other.items() if s[0] == _PROBE and tuple(state[k].shape[1:]) == s[1:]}
        rest = {key: shape for key, shape in other.items() if key not in heads}
        classes = {int(state[key].shape[0]) for key in heads} or {_PROBE}
        if not rest and len(classes) == 1:
            channels = args.get("in_chans", 3)
            return Architecture(name, classes.pop(), channels, size or args.get("img_size", own), args)
        learned = _learn(rest, state, own) if name.startswith("timm:") else {}
        if not learned.keys() - args.keys():
            return None
        args |= learned
    return None


@functools.cache  # a question about weights asks for the same net several times
def _shapes(name: str, **args: Any) -> dict[str, tuple[int, ...]]:
    try:
        net = make_net(name, **args)
    except TypeError as error:  # not every architecture has another size or number of channels
        raise ValueError(f"'{name}' does not take {sorted(args)}: {error}") from error
    return {key: tuple(value.shape) for key, value in net.state_dict().items()}


def _learn(other: Mapping[str, tuple[int, ...]], state: Mapping[str, Tensor], own: int) -> dict[str, Any]:
    """Tell channels from a first convolution, and the size from a table of positions."""
    learned: dict[str, Any] = {}
    for key, shape in other.items():
        given = tuple(state[key].shape)
        if len(shape) == 4 == len(given) and shape[1] == 3 and (shape[0], *shape[2:]) == (given[0], *given[2:]):
            learned["in_chans"] = given[1]
        elif key == "pos_embed" and len(shape) == 3 == len(given) and shape[2] == given[2]:
            prefix = shape[1] - int(shape[1] ** 0.5) ** 2
            cells, side = given[1] - prefix, round((given[1] - prefix) ** 0.5)
            if side > 0 and side * side == cells:
                learned["img_size"] = own * side // round((shape[1] - prefix) ** 0.5)
    return learned


def statistics_of(name: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Give the mean and the std by which an architecture's images are normalized: timm's note, or ImageNet's."""
    library, _, model = name.partition(":")
    config = timm.get_pretrained_cfg(model, allow_unregistered=True) if library == "timm" else None
    return _IMAGENET if config is None else (tuple(config.mean), tuple(config.std))


def _native_size(name: str) -> int:
    """Give the side of the images that an architecture was made for."""
    library, _, model = name.partition(":")
    if library == "torchvision":
        return 299 if model == "inception_v3" else 224
    config = timm.get_pretrained_cfg(model, allow_unregistered=True)
    return int(config.input_size[-1]) if config is not None else 224


if __name__ == "__main__":  # after an update of timm or torchvision
    _table().write_text(json.dumps(tabulate(), indent=0) + "\n")
