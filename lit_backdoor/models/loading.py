"""A classifier from a file or a folder that somebody else made: architecture, classes and sizes are read off it."""

from __future__ import annotations

import inspect
import math
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import timm
import torchvision
from torch import Tensor, nn

from lit_backdoor.bundle import open_bundle
from lit_backdoor.models.architectures import find_architectures, make_net, signature, statistics_of
from lit_backdoor.models.base import CIFAR_MEAN, CIFAR_STD, Classifier
from lit_backdoor.models.choosing import choose, not_found, say
from lit_backdoor.models.folders import LARGEST, find_weights, read_config
from lit_backdoor.models.foreign import ForeignClassifier
from lit_backdoor.models.split import choose_split
from lit_backdoor.models.timm_classifier import SMALL, TimmClassifier
from lit_backdoor.recipe import load_factory
from lit_backdoor.refusals import one_line
from lit_backdoor.weights import find_state, layers_of, load_state, match_keys, prefixes, read_content

__all__ = ["load_classifier"]

# How functions that make nets call the number of classes, and the channels of the images.
_CLASSES = ("num_classes", "n_classes", "nb_classes", "num_class", "num_labels", "classes")
_CHANNELS = ("in_chans", "in_channels", "num_channels", "n_channels", "input_channels")
_LARGEST_SIDE = 2_048  # pixels; the net is run once on an image of that size
# What nets raise that are given images of another size, or arguments that they do not take.
_UNFIT = (RuntimeError, AssertionError, TypeError, AttributeError, LookupError, ArithmeticError)


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
        classes: Number of classes; None to read it off the last layer. A bundle takes no option but this one.
        size: Side of the images in pixels; None for that of the architecture.
        mean: Mean of each channel; None for that of the folder's or the architecture's configuration.
        std: Standard deviation of each channel, likewise.
        split: Name of the layer that ends S_a; None for the last before the classifier that all flows through.
        part: Dotted place of the state dict in the file; None to find it.

    Returns:
        The classifier, in eval mode.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the architecture is not found or several fit, which are listed; if the weights do not fit it, or
            the net cannot be run; and as `lit_backdoor.weights.read_weights` does.
    """
    place = Path(path)
    options = {"arch": arch, "size": size, "mean": mean, "std": std, "split": split, "part": part}
    if (place / "bundle.json").is_file():
        _refuse_options(place, options)
        built = open_bundle(place, "suspect").build()
        if not isinstance(built, Classifier):
            raise ValueError(f"Expected a classifier in the bundle {place}, got {type(built).__name__}.")
        _check_classes(place, classes, built)
        return built
    config, file, arch = read_config(place), find_weights(place), _full_name(arch)
    args = None
    if arch is None and "architecture" in config:
        arch, args = _full_name(f"timm:{config['architecture']}"), config.get("args")
    given: dict[str, Any] = {"mean": mean or config.get("mean"), "std": std or config.get("std"), "split": split}
    _check_options(size, given["mean"], given["std"])
    content = read_content(file)
    state, noted = find_state(content, file, part), config.get("size") or _noted_size(content)
    if size is None and noted is not None and not 0 < noted <= LARGEST:
        raise ValueError(f"Expected {place} to say a size of 1 to {LARGEST} px, got {noted}. Give --size.")
    try:
        if arch is not None and ":" not in arch:
            classifier: Classifier = _by_function(arch, state, classes, size or noted, **given)
        else:
            classifier = _by_library(file, arch, args, state, size, noted, layers_of(content, state), **given)
    except _UNFIT as error:
        raise ValueError(
            f"The net cannot be made and run as it was described ({type(error).__name__}: {one_line(str(error))}). "
            "Check --arch, --classes and --size."
        ) from error
    _check_classes(file, classes, classifier)
    load_state(classifier, match_keys(state, classifier.state_dict()), str(file), "Check arch, classes and size.")
    return classifier.eval()


def _check_classes(place: Path, classes: int | None, classifier: Classifier) -> None:
    if classes is not None and classes != classifier.num_classes:
        raise ValueError(f"Expected {classes} classes, but the weights in {place} are for {classifier.num_classes}.")


def _refuse_options(place: Path, given: Mapping[str, Any]) -> None:
    """Refuse what a bundle says itself, and would go on to say differently."""
    if said := [name for name, value in given.items() if value is not None]:
        raise ValueError(
            f"Expected no {', '.join(said)} with the bundle {place}, which holds it. Leave it out, or import the model "
            "that the bundle was made from anew."
        )


def _check_options(size: int | None, mean: Sequence[float] | None, std: Sequence[float] | None) -> None:
    if size is not None and not 1 <= size <= _LARGEST_SIDE:
        raise ValueError(f"Expected a size from 1 to {_LARGEST_SIDE:,} pixels, got {size}.")
    for name, values in (("mean", mean), ("std", std)):
        if not all(isinstance(value, int | float) and math.isfinite(value) for value in values or ()):
            raise ValueError(f"Expected finite numbers as {name}, got {list(values or ())}.")
    if not all(value > 0 for value in std or ()):
        raise ValueError(f"Expected a std above 0, got {list(std or ())}.")


def _noted_size(content: Any) -> int | None:
    """Read the side of the images that a checkpoint notes beside the weights, as BackdoorBench's results do."""
    shape = content.get("img_size") if isinstance(content, Mapping) else None
    shape = shape if isinstance(shape, list | tuple) else [shape]
    return max(shape) if all(type(side) is int and side > 0 for side in shape) and shape else None


def _full_name(arch: str | None) -> str | None:
    """Name an architecture of a library as ``library:NAME``; one without a library may be of either."""
    if arch is None or ":" in arch:
        return arch.partition(".")[0] if arch is not None and arch.startswith("timm:") else arch  # without a tag
    path, _, name = arch.rpartition(".")
    if f"{path}.".startswith(("torchvision.models.", "timm.models.")):
        return f"{path.partition('.')[0]}:{name}"
    if not path:
        known = [f"timm:{arch}"] if timm.is_model(arch) else []
        known += [f"torchvision:{arch}"] if arch in torchvision.models.list_models(module=torchvision.models) else []
        hint = f" Did you mean {' or '.join(known)}?" if known else ""
        raise ValueError(
            f"Expected an architecture as timm:NAME, torchvision:NAME or your own module.function, got '{arch}'.{hint}"
        )
    return arch


def _by_library(
    file: Path,
    arch: str | None,
    args: dict[str, Any] | None,
    state: Mapping[str, Tensor],
    size: int | None,
    noted: int | None,
    layers: Collection[str],
    **given: Any,
) -> Classifier:
    """Build the architecture of timm or torchvision that the weights fit.

    Args:
        file: The file of the weights.
        arch: The architecture, if it is known.
        args: Arguments of its builder, if they are known.
        state: The weights.
        size: Side of the images, if it was given.
        noted: Side of the images by the folder or the file, which the weights may know better.
        layers: Names of all layers of the net that was saved, as far as the file says.
        **given: ``mean``, ``std`` and ``split``, or None.
    """
    own = _bare(state, arch, args or {})
    fitting = find_architectures(own, arch, size, args)
    if not fitting:
        small = _small(own, arch, size or noted, **given)
        if small is not None:
            return small
        raise not_found(file, arch, own)
    chosen = choose(file, fitting, own, layers)
    if noted is not None and not chosen.sized:
        chosen = replace(chosen, size=noted)
    library, _, model = chosen.name.partition(":")
    mean, std = _pair(chosen.channels, statistics_of(chosen.name), given["mean"], given["std"])
    built = {"num_classes": chosen.classes, **chosen.args}
    shape = (chosen.channels, chosen.size, chosen.size)
    split = given["split"] or choose_split(make_net(chosen.name, "cpu", **built), shape)
    say(file, f"architecture {chosen.name}", f"{chosen.classes} classes", f"{chosen.size} px", f"mean {mean}",
        f"std {std}", f"split {split}")  # fmt: skip
    return ForeignClassifier(f"{library}.models.{model}", built, split, chosen.classes, chosen.size, mean, std)


def _bare(state: Mapping[str, Tensor], arch: str | None, args: Mapping[str, Any]) -> dict[str, Tensor]:
    """Name weights as the bare net does: without the prefix of what wraps it, and without those of a loss."""
    if arch is not None:
        return _matched(state, make_net(arch, **args))
    options = [""] + [p for p in prefixes(state, 3) if sum(key.startswith(p) for key in state) >= len(state) / 2]
    named = [{key.removeprefix(p): value for key, value in state.items() if key.startswith(p)} for p in options]
    stemmed = (each for each in named if "conv1.weight" in each)  # maybe a ResNet for small images, see `_small`
    return next((each for each in named if find_architectures(each)), None) or next(stemmed, named[0])


def _matched(state: Mapping[str, Tensor], net: nn.Module) -> dict[str, Tensor]:
    """Name weights as a net does; what is left out is said when they are loaded."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return match_keys(state, net.state_dict())


def _small(state: Mapping[str, Tensor], arch: str | None, size: int | None, **given: Any) -> Classifier | None:
    """Build a ResNet whose stem is one 3x3 convolution, as for small images, of any width and number of channels."""
    stem = state.get("conv1.weight")
    if stem is None or stem.ndim != 4 or tuple(stem.shape[2:]) != (3, 3):
        return None
    names = [arch.partition(":")[2]] if arch else ["resnet18", "resnet34", "resnet50", "resnet101", "resnet152"]
    wanted = signature(state)
    last = next((value for key, value in state.items() if key == "fc.weight"), None)
    for name in names:
        if last is None or not name.startswith("resnet") or signature(make_net(f"timm:{name}").state_dict()) != wanted:
            continue
        width, side, channels = None if len(stem) == 64 else len(stem), size or 32, stem.shape[1]
        if side > SMALL:
            raise ValueError(
                f"Expected images of at most {SMALL} px for {name} with a 3x3 stem, which has no pooling, got {side}. "
                "If the net is another one, name your own module.function that makes it by --arch."
            )
        mean, std = _pair(channels, (CIFAR_MEAN, CIFAR_STD), given["mean"], given["std"])
        say(None, f"architecture {name} with a 3x3 stem of stride 1 without pooling", f"{len(last)} classes",
            f"{side} px", f"mean {mean}", f"std {std}")  # fmt: skip
        return TimmClassifier(name, len(last), side, width, mean, std, split=given["split"])
    return None


def _by_function(
    name: str, state: Mapping[str, Tensor], classes: int | None, size: int | None, **given: Any
) -> Classifier:
    """Build a net by the user's own function; its last matrix tells the number of classes, its first filters channels.

    Files may hold weights in another order than the net, by their names for example, so a first net says the order.
    """
    if classes is not None and not any(classes in value.shape for value in state.values()):
        raise ValueError(f"Expected as many classes as the weights have outputs, got {classes}: no tensor has so many.")
    factory = _load_factory(name)
    takes = inspect.signature(factory).parameters
    net = factory(**{key: classes or 2 for key in _CLASSES if key in takes})
    if not isinstance(net, nn.Module):
        raise ValueError(f"Expected '{name}' to make a torch.nn.Module, got {type(net).__name__}.")
    own = _matched(state, net)
    weights = [own[key] for key in net.state_dict() if key in own]
    matrices = [value for value in weights if value.ndim == 2]
    count = classes or (len(matrices[-1]) if matrices else 0)
    if count < 1:
        raise ValueError(f"Expected --classes for '{name}', whose weights end in no linear layer.")
    first = next((value for value in weights if value.ndim == 4), None)
    channels, side = 3 if first is None else int(first.shape[1]), size or 32
    args = {key: count for key in _CLASSES if key in takes} | {key: channels for key in _CHANNELS if key in takes}
    mean, std = _pair(channels, ((0.5,) * 3, (0.5,) * 3), given["mean"], given["std"])
    net = factory(**args)
    split = given["split"] or choose_split(net, (channels, side, side))
    say(None, f"{count} classes", f"{side} px", f"mean {mean}", f"std {std}", f"split {split}")
    return ForeignClassifier(name, args, split, count, side, mean, std)


def _load_factory(name: str) -> Callable[..., Any]:
    """Import the user's function; what their module raises, or that it ends the program, is an error of one line."""
    try:
        return load_factory(name)
    except ValueError:
        raise
    except (Exception, SystemExit) as error:
        raise ValueError(
            f"The module of '{name}' cannot be imported ({type(error).__name__}: {one_line(str(error))}). Name one "
            "that does nothing but define the net."
        ) from error


def _pair(
    channels: int,
    usual: tuple[Sequence[float], Sequence[float]],
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Give mean and std: those given, else the usual ones, or .5 for another number of channels."""
    if len(usual[0]) != channels:
        usual = ((0.5,) * channels, (0.5,) * channels)
    pair = tuple(mean or usual[0]), tuple(std or usual[1])
    for name, values in zip(("mean", "std"), pair, strict=True):
        if len(values) != channels:
            raise ValueError(f"Expected as many values of --{name} as the net has channels, {channels}, got {values}.")
    return pair
