"""A classifier from a file or a folder that somebody else made: architecture, classes and sizes are read off it."""

from __future__ import annotations

import inspect
import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn

from lit_backdoor.bundle import open_bundle
from lit_backdoor.models.architectures import Architecture, find_architectures, make_net, signature
from lit_backdoor.models.base import CIFAR_MEAN, CIFAR_STD, Classifier, evaluating
from lit_backdoor.models.foreign import ForeignClassifier
from lit_backdoor.models.split import choose_split
from lit_backdoor.models.timm_classifier import SMALL, TimmClassifier
from lit_backdoor.recipe import load_factory
from lit_backdoor.weights import load_state, match_keys, prefixes, read_weights

__all__ = ["find_weights", "load_classifier"]

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def load_classifier(
    path: str | Path,
    arch: str | None = None,
    *,
    classes: int | None = None,
    size: int | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    split: str | None = None,
    part: str | None = None,
) -> Classifier:
    """Load a classifier from somebody else's weights; what was guessed is said in a warning.

    Args:
        path: A safetensors file, a ``torch.save`` file of tensors, a folder of timm or the Hugging Face Hub
            (``config.json`` beside the weights), or a bundle. Nothing in it is executed.
        arch: ``timm:NAME``, ``torchvision:NAME`` or the dotted name of your own function or class that makes the net;
            None to find it by the names and shapes of the weights.
        classes: Number of classes; None to read it off the last layer.
        size: Side of the images in pixels; None for that of the architecture.
        mean: Mean of each channel; None for that of the folder's or the architecture's configuration.
        std: Standard deviation of each channel, likewise.
        split: Name of the layer that ends S_a; None for the last before the classifier that all flows through.
        part: Dotted place of the state dict in the file; None to find it.

    Returns:
        The classifier, in eval mode.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the architecture is not found or several fit, which are listed; if the weights do not fit it; and
            as `lit_backdoor.weights.read_weights` does.
    """
    place = Path(path)
    if (place / "bundle.json").is_file():
        built = open_bundle(place, "suspect").build()
        if not isinstance(built, Classifier):
            raise ValueError(f"Expected a classifier in the bundle {place}, got {type(built).__name__}.")
        return built
    config = _config(place) if place.is_dir() else {}
    file = find_weights(place)
    arch = arch or (f"timm:{config['architecture']}" if "architecture" in config else None)
    state = read_weights(file, part)
    given: dict[str, Any] = {
        "size": size,
        "mean": mean or config.get("mean"),
        "std": std or config.get("std"),
        "split": split,
    }
    if arch is not None and ":" not in arch:
        classifier: Classifier = _by_function(arch, state, classes, **given)
    else:
        classifier = _by_library(file, arch, state, **given)
    if classes is not None and classes != classifier.num_classes:
        raise ValueError(f"Expected {classes} classes, but the weights in {file} are for {classifier.num_classes}.")
    load_state(classifier, match_keys(state, classifier.state_dict()), str(file), "Check arch, classes and size.")
    return classifier.eval()


def _config(folder: Path) -> dict[str, Any]:
    """Read what a folder of timm says: the architecture, mean and std."""
    file = folder / "config.json"
    try:
        content = json.loads(file.read_text()) if file.is_file() else {}
    except (ValueError, RecursionError) as error:
        raise ValueError(f"Expected JSON in {file}: {error}.") from error
    if not isinstance(content, dict):
        raise ValueError(f"Expected a mapping in {file}, got {type(content).__name__}.")
    if "architectures" in content and "architecture" not in content:
        raise ValueError(
            f"Expected a model of timm in {folder}, got one of transformers, {content['architectures']}. Save the net "
            "that it wraps as a state dict, and name its architecture by arch."
        )
    details = content.get("pretrained_cfg") or {}
    found = {"architecture": content.get("architecture"), "mean": details.get("mean"), "std": details.get("std")}
    return {key: value for key, value in found.items() if value is not None}


def find_weights(place: Path) -> Path:
    """Give the file of weights in a folder, or the file itself.

    Raises:
        FileNotFoundError: If the folder has none.
    """
    if not place.is_dir():
        return place
    files = [place / name for name in ("model.safetensors", "pytorch_model.bin")]
    files += [file for kind in ("safetensors", "pt", "pth", "ckpt", "bin") for file in sorted(place.glob(f"*.{kind}"))]
    found = sorted({file for file in files if file.is_file()}, key=files.index)
    if not found:
        raise FileNotFoundError(f"Expected a file of weights in the folder '{place}', such as model.safetensors.")
    return found[0]


def _by_library(
    file: Path, arch: str | None, state: Mapping[str, Tensor], size: int | None, **given: Any
) -> Classifier:
    """Build the architecture of timm or torchvision that the weights fit."""
    own = _bare(state, arch)
    fitting = find_architectures(own, arch, size)
    if not fitting:
        small = _small(own, arch, size, **given)
        if small is not None:
            return small
        shown = ", ".join(list(state)[:3])
        raise ValueError(
            f"Expected the weights in {file} to fit {f'{arch!r}' if arch else 'an architecture of timm or torchvision'}"
            f", got others, such as {shown}. Name the architecture: timm:NAME, torchvision:NAME, or your own "
            "module.function that makes the net."
        )
    chosen = _choose(file, fitting, own)
    library, _, model = chosen.name.partition(":")
    mean, std = _statistics(chosen, given["mean"], given["std"])
    args = {"num_classes": chosen.classes, **chosen.args}
    shape = (chosen.channels, chosen.size, chosen.size)
    split = given["split"] or choose_split(make_net(chosen.name, "cpu", **args), shape)
    _say(file, f"architecture {chosen.name}", f"{chosen.classes} classes", f"{chosen.size} px", f"mean {mean}",
         f"std {std}", f"split {split}")  # fmt: skip
    return ForeignClassifier(f"{library}.models.{model}", args, split, chosen.classes, chosen.size, mean, std)


def _bare(state: Mapping[str, Tensor], arch: str | None) -> dict[str, Tensor]:
    """Name weights as the bare net does: without the prefix of what wraps it, and without those of a loss."""
    if arch is not None:
        return match_keys(state, make_net(arch).state_dict())
    options = [""] + [p for p in prefixes(state, 3) if sum(key.startswith(p) for key in state) > len(state) / 2]
    named = [{key.removeprefix(p): value for key, value in state.items() if key.startswith(p)} for p in options]
    stemmed = (each for each in named if "conv1.weight" in each)  # maybe a ResNet for small images, see `_small`
    return next((each for each in named if find_architectures(each)), None) or next(stemmed, named[0])


def _small(state: Mapping[str, Tensor], arch: str | None, size: int | None, **given: Any) -> Classifier | None:
    """Build a ResNet whose stem is one 3x3 convolution, as for small images, of any width."""
    stem = state.get("conv1.weight")
    if stem is None or tuple(stem.shape[1:]) != (3, 3, 3):
        return None
    names = [arch.partition(":")[2]] if arch else ["resnet18", "resnet34", "resnet50", "resnet101", "resnet152"]
    wanted = signature(state)
    last = next((value for key, value in state.items() if key == "fc.weight"), None)
    for name in names:
        if last is None or not name.startswith("resnet") or signature(make_net(f"timm:{name}").state_dict()) != wanted:
            continue
        width = None if len(stem) == 64 else len(stem)
        side = min(size or 32, SMALL)
        mean, std = given["mean"] or CIFAR_MEAN, given["std"] or CIFAR_STD
        _say(None, f"architecture {name} with a 3x3 stem", f"{len(last)} classes", f"{side} px", f"mean {mean}")
        return TimmClassifier(name, len(last), side, width, tuple(mean), tuple(std), split=given["split"])
    return None


def _by_function(
    name: str, state: Mapping[str, Tensor], classes: int | None, size: int | None, **given: Any
) -> Classifier:
    """Build a net by the user's own function; the last matrix of the weights tells the number of classes."""
    matrices = [value for value in state.values() if value.ndim == 2]
    count = classes or (len(matrices[-1]) if matrices else 0)
    if count < 1:
        raise ValueError(f"Expected classes for '{name}', whose weights end in no linear layer. Set classes.")
    factory = load_factory(name)
    args = {"num_classes": count} if "num_classes" in inspect.signature(factory).parameters else {}
    first = next((value for value in state.values() if value.ndim == 4), None)
    channels, side = 3 if first is None else int(first.shape[1]), size or 32
    mean, std = (tuple(given[key] or [0.5] * channels) for key in ("mean", "std"))
    net = factory(**args)
    if not isinstance(net, nn.Module):
        raise ValueError(f"Expected '{name}' to make a torch.nn.Module, got {type(net).__name__}.")
    split = given["split"] or choose_split(net, (channels, side, side))
    _say(None, f"{count} classes", f"{side} px", f"mean {mean}", f"std {std}", f"split {split}")
    return ForeignClassifier(name, args, split, count, side, mean, std)


def _choose(file: Path, fitting: list[Architecture], state: Mapping[str, Tensor]) -> Architecture:
    """Choose among architectures that weights fit: one that computes what all do, else one that others vary."""
    if len(fitting) == 1:
        return fitting[0]
    outputs = [_output(each, state) for each in fitting]
    for chosen, output in zip(fitting, outputs, strict=True):
        others = [each for each, its in zip(fitting, outputs, strict=True) if not _alike(its, output)]
        if all(_varies(each.name, chosen.name) for each in others):
            if others:
                _say(file, f"{chosen.name} rather than {', '.join(each.name for each in others)}")
            return chosen
    raise ValueError(
        f"The weights in {file} fit several architectures, which compute different things: "
        f"{', '.join(each.name for each in fitting)}. Name one by arch."
    )


def _alike(output: Tensor, other: Tensor) -> bool:
    return output.shape == other.shape and torch.allclose(output, other, rtol=1e-3, atol=1e-4)


def _varies(name: str, plain: str) -> bool:
    """Tell whether a name adds something to a plain one, as tf_efficientnet_b0 and resnetaa50 do."""
    letters = iter(name.partition(":")[2])
    return all(letter in letters for letter in plain.partition(":")[2])


def _output(architecture: Architecture, state: Mapping[str, Tensor]) -> Tensor:
    net = make_net(architecture.name, "cpu", num_classes=architecture.classes, **architecture.args)
    net.load_state_dict(dict(state), strict=False)
    shape = (2, architecture.channels, architecture.size, architecture.size)
    with evaluating(net):
        return net(torch.rand(shape, generator=torch.Generator().manual_seed(0)))  # type: ignore[no-any-return]


def _statistics(
    chosen: Architecture, mean: Sequence[float] | None, std: Sequence[float] | None
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Give mean and std: those given, or those that timm notes for the architecture, or ImageNet's."""
    known = timm.get_pretrained_cfg(chosen.name.partition(":")[2], allow_unregistered=True)
    own = (known.mean, known.std) if known is not None and chosen.name.startswith("timm:") else None
    pair = own or (IMAGENET_MEAN, IMAGENET_STD)
    if chosen.channels != len(pair[0]):
        pair = ((0.5,) * chosen.channels, (0.5,) * chosen.channels)
    return tuple(mean or pair[0]), tuple(std or pair[1])


def _say(file: Path | None, *guesses: str) -> None:
    where = f" from {file}" if file else ""
    warnings.warn(f"Guessed{where}: {'; '.join(guesses)}. What is wrong can be given as an argument.", stacklevel=4)
