"""One architecture among those that weights fit; a question if they compute different things."""

from __future__ import annotations

import re
import warnings
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from lit_backdoor.models.architectures import (
    Architecture,
    find_architectures,
    is_published,
    make_net,
    statistics_of,
)
from lit_backdoor.models.base import evaluating
from lit_backdoor.weights import misfits, prefixes

__all__ = ["choose", "not_found", "say"]

_HEAD = re.compile(r"^(\w+)\.\d+\.(weight|bias)$")  # of a Sequential in the place of a linear layer


def choose(
    file: Path, fitting: Sequence[Architecture], state: Mapping[str, Tensor], layers: Collection[str] = ()
) -> Architecture:
    """Choose the architecture with the shortest name if all that are likely compute the same.

    Args:
        file: The file of the weights, for what is said.
        fitting: The architectures, at least one.
        state: The weights, by the net's own names.
        layers: Names of all layers of the net that was saved, also of those without weights, as far as known.

    Raises:
        ValueError: If they compute different things; lists them.
    """
    if len(fitting) == 1:
        return fitting[0]
    likely = _likely(file, fitting, layers)
    chosen = min(likely, key=lambda each: len(each.name.partition(":")[2]))
    outputs = {each.name: _output(each, state) for each in likely}
    if not all(_alike(output, outputs[chosen.name]) for output in outputs.values()):
        raise ValueError(
            f"The weights in {file} fit several architectures, which compute different things: {', '.join(outputs)}. "
            "Name one by --arch."
        )
    for each in [each for each in likely if statistics_of(each.name) != statistics_of(chosen.name)][:1]:
        mean, std = statistics_of(each.name)
        say(file, f"mean and std of {chosen.name}, but {each.name} is the same net with mean {mean}, std {std}")
    return chosen


def not_found(file: Path, arch: str | None, state: Mapping[str, Tensor]) -> ValueError:
    """Say in what weights differ from the architecture that was named or the nearest one, if there is one."""
    if arch is not None:
        odd = misfits(state, make_net(arch).state_dict())
        kinds: list[str] = [what for what in ("missing", "unexpected") if what in odd]
        kinds = kinds or [what for what in odd if what != "not finite"]
        said = "; ".join(f"{len(odd[what])} {what}, such as {odd[what][0]}" for what in kinds)
        return ValueError(
            f"Expected the weights in {file} to fit '{arch}', got others: {said}. Name another one by --arch, or your "
            "own module.function that makes the net."
        )
    heads = [key for key in state if _HEAD.match(key)]
    near = find_architectures({_HEAD.sub(r"\1.\2", key): value for key, value in state.items()}) if heads else []
    if near:
        return ValueError(
            f"Expected the weights in {file} to fit an architecture of timm or torchvision, got those of "
            f"{near[0].name} with another head: {', '.join(heads)}. Name your own module.function that makes such a "
            "net by --arch."
        )
    return ValueError(
        f"Expected the weights in {file} to fit an architecture of timm or torchvision, got others, such as "
        f"{', '.join(list(state)[:3])}. Name the architecture by --arch: timm:NAME, torchvision:NAME, or your own "
        "module.function that makes the net."
    )


def say(file: Path | None, *guesses: str) -> None:
    """Say in a warning what was guessed."""
    where = f" from {file}" if file else ""
    warnings.warn(f"Guessed{where}: {'; '.join(guesses)}. What is wrong can be given as an argument.", stacklevel=4)


def _likely(file: Path, fitting: Sequence[Architecture], layers: Collection[str]) -> Sequence[Architecture]:
    """Keep those whose layers were saved; if the file does not say, those that a library has trained weights of."""
    if kept := [each for each in fitting if _has(each, layers)]:
        return kept
    kept = [each for each in fitting if is_published(each.name)] or list(fitting)
    if left := [each.name for each in fitting if each not in kept]:
        say(file, f"not {', '.join(left)}, of which there are no published weights")
    return kept


def _has(architecture: Architecture, layers: Collection[str]) -> bool:
    """Tell whether an architecture's layers are among those that were saved, under any prefix."""
    net = make_net(architecture.name, num_classes=architecture.classes, **architecture.args)
    own = [name for name, _ in net.named_modules() if name]
    return any(all(f"{start}{name}" in layers for name in own) for start in ("", *prefixes(layers, 3)))


def _alike(output: Tensor, other: Tensor) -> bool:
    tolerance = 1e-3 * float(other.abs().max().nan_to_num())
    return output.shape == other.shape and torch.allclose(output, other, rtol=0, atol=tolerance, equal_nan=True)


def _output(architecture: Architecture, state: Mapping[str, Tensor]) -> Tensor:
    net = make_net(architecture.name, "cpu", num_classes=architecture.classes, **architecture.args)
    net.load_state_dict(dict(state), strict=False)
    shape = (2, architecture.channels, architecture.size, architecture.size)
    with evaluating(net):
        return net(torch.rand(shape, generator=torch.Generator().manual_seed(0)))  # type: ignore[no-any-return]
