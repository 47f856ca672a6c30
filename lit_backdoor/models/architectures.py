"""Which architecture of timm or torchvision weights belong to: found by their names, decided by their shapes."""

from __future__ import annotations

import contextlib
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

__all__ = [
    "Architecture",
    "find_architectures",
    "is_published",
    "make_net",
    "signature",
    "statistics_of",
    "tabulate",
]

Args = dict[str, Any]
_IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_PROBE = 13  # a number of classes that no architecture has by itself
_LIBRARIES = ("timm", "torchvision")
# Forms of an architecture beside that of its builder's defaults: torchvision drops the auxiliary heads of these two.
_FORMS: dict[str, tuple[Args, ...]] = {
    f"torchvision:{name}": tuple({"aux_logits": aux, "init_weights": False} for aux in (True, False))
    for name in ("googlenet", "inception_v3")
}
# Tables of positions, and the arguments that set their size.
_POSITIONS = {"pos_embed": "img_size", "encoder.pos_embedding": "image_size"}


@dataclass(frozen=True)
class Architecture:
    """An architecture and what the weights say of it.

    Attributes:
        name: ``timm:NAME`` or ``torchvision:NAME``.
        classes: Number of classes.
        channels: Channels of the images.
        size: Side of the images in pixels.
        sized: Whether the size was given or the weights tell it; otherwise it is the architecture's own.
        args: Arguments of the builder.
    """

    name: str
    classes: int
    channels: int
    size: int
    sized: bool
    args: Args


def signature(names: Iterable[str]) -> str:
    """Hash the names of a net's weights; counts of batches, which old files lack, are left out."""
    counted = sorted(name for name in names if not name.endswith("num_batches_tracked"))
    return hashlib.sha256("\n".join(counted).encode()).hexdigest()[:10]


def tabulate() -> dict[str, str]:
    """Group all architectures by the signature of their weights' names; takes minutes, and is kept in a file."""
    table: dict[str, list[str]] = {}
    timms = [f"timm:{name}" for name in timm.list_models()]
    for name in [*timms, *(f"torchvision:{n}" for n in torchvision.models.list_models(module=torchvision.models))]:
        for args in _forms(name):
            try:
                table.setdefault(signature(make_net(name, **args).state_dict()), []).append(name)
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
    state: Mapping[str, Tensor], name: str | None = None, size: int | None = None, args: Args | None = None
) -> list[Architecture]:
    """List the architectures whose weights have these names and shapes.

    Args:
        state: The weights, by the net's own names.
        name: The one that is asked for; None for all that are known.
        size: Side of the images, if it is known.
        args: Arguments of the builder of the one that is asked for, if they are known.

    Raises:
        ValueError: If the one that is asked for is unknown, or does not take the arguments that the weights ask for.
    """
    if name is not None:
        forms = _forms(name) if args is None else (args,)
        return [found for form in forms if (found := _fit(name, state, size, form)) is not None]
    names = json.loads(_table().read_text()).get(signature(state), "").split()
    fitting: list[Architecture] = []
    for each in names:
        with contextlib.suppress(ValueError):  # the installed library lacks it, or it takes no such argument
            fitting += find_architectures(state, each, size)
    return fitting


def _table() -> Any:
    return files("lit_backdoor.models") / "architectures.json"


def _forms(name: str) -> tuple[Args, ...]:
    return _FORMS.get(name, ({},))


def _fit(name: str, state: Mapping[str, Tensor], size: int | None, args: Args) -> Architecture | None:
    """Read classes, channels and size off the weights that may differ; None if others do."""
    own = _native_size(name)
    for _ in range(3):  # each pass may learn the channels or the size
        wanted = _shapes(name, **args)
        if signature(wanted) != signature(state):
            return None
        other = {key: shape for key, shape in wanted.items() if key in state and tuple(state[key].shape) != shape}
        heads = {k: s for k, s in other.items() if s[0] == _PROBE and tuple(state[k].shape[1:]) == s[1:]}
        rest = {key: shape for key, shape in other.items() if key not in heads}
        classes = {int(state[key].shape[0]) for key in heads} or {_PROBE}
        if not rest and len(classes) == 1:
            learned = next((args[key] for key in _POSITIONS.values() if key in args), None)
            channels, sized = args.get("in_chans", 3), size is not None or learned is not None
            return Architecture(name, classes.pop(), channels, size or learned or own, sized, args)
        learned_args = _learn(rest, state, own, name.startswith("timm:"))
        if not learned_args.keys() - args.keys():
            return None
        args = {**args, **learned_args}
    return None


@functools.cache  # a question about weights asks for the same net several times
def _shapes(name: str, **args: Any) -> dict[str, tuple[int, ...]]:
    try:
        net = make_net(name, num_classes=_PROBE, **args)
    except (TypeError, AssertionError, RuntimeError) as error:  # not every architecture has another size or channels
        raise ValueError(f"'{name}' does not take {sorted(args)}: {error}") from error
    return {key: tuple(value.shape) for key, value in net.state_dict().items()}


def _learn(other: Mapping[str, tuple[int, ...]], state: Mapping[str, Tensor], own: int, any_channels: bool) -> Args:
    """Tell channels from a first convolution if the builder takes them, and the size from a table of positions."""
    learned: Args = {}
    for key, shape in other.items():
        given = tuple(state[key].shape)
        if len(shape) == 4 == len(given) and shape[1] == 3 and (shape[0], *shape[2:]) == (given[0], *given[2:]):
            learned |= {"in_chans": given[1]} if any_channels else {}
        elif key in _POSITIONS and len(shape) == 3 == len(given) and shape[2] == given[2]:
            prefix = shape[1] - int(shape[1] ** 0.5) ** 2
            cells, side = given[1] - prefix, round((given[1] - prefix) ** 0.5)
            if side > 0 and side * side == cells:
                learned[_POSITIONS[key]] = own * side // round((shape[1] - prefix) ** 0.5)
    return learned


def statistics_of(name: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Give the mean and the std by which an architecture's images are normalized: timm's note, or ImageNet's."""
    library, _, model = name.partition(":")
    config = timm.get_pretrained_cfg(model, allow_unregistered=True) if library == "timm" else None
    return _IMAGENET if config is None else (tuple(config.mean), tuple(config.std))


def is_published(name: str) -> bool:
    """Tell whether a library has trained weights of an architecture."""
    library, _, model = name.partition(":")
    return library == "torchvision" or bool(timm.is_model_pretrained(model))


def _native_size(name: str) -> int:
    """Give the side of the images that an architecture was made for."""
    library, _, model = name.partition(":")
    if library == "torchvision":
        return 299 if model == "inception_v3" else 224
    config = timm.get_pretrained_cfg(model, allow_unregistered=True)
    return int(config.input_size[-1]) if config is not None else 224


if __name__ == "__main__":  # after an update of timm or torchvision
    _table().write_text(json.dumps(tabulate(), indent=0) + "\n")
