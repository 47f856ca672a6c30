"""One architecture among those that weights fit; a question where they compute different things."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from lit_backdoor.models.architectures import Architecture, find_architectures, make_net, statistics_of
from lit_backdoor.models.base import evaluating
from lit_backdoor.weights import misfits

__all__ = ["choose", "not_found", "say"]

_HEAD = re.compile(r"^(\w+)\.\d+\.(weight|bias)$")  # of a Sequential in the place of a linear layer


def choose(file: Path, fitting: Sequence[Architecture], state: Mapping[str, Tensor]) -> Architecture:
    """Choose the architecture that computes what all do, else one that the others vary; short names come first.

    Args:
        file: The file of the weights, for what is said.
        fitting: The architectures, at least one.
        state: The weights, by the net's own names.

    Raises:
        ValueError: If they compute different things; lists them.
    """
    if len(fitting) == 1:
        return fitting[0]
    outputs = {each.name: _output(each, state) for each in fitting}
    for chosen in sorted(fitting, key=lambda each: len(_plain(each.name))):
        same = [each for each in fitting if _alike(outputs[each.name], outputs[chosen.name])]
        others = [each for each in fitting if each not in same]
        if not all(_varies(each.name, chosen.name) for each in others):
            continue
        if others:
            say(file, f"{chosen.name} rather than {', '.join(each.name for each in others)}")
        for each in [e for e in same if statistics_of(e.name) != statistics_of(chosen.name)][:1]:
            mean, std = statistics_of(each.name)
            say(file, f"mean and std of {chosen.name}, but {each.name} is the same net with mean {mean}, std {std}")
        return chosen
    raise ValueError(
        f"The weights in {file} fit several architectures, which compute different things: "
        f"{', '.join(each.name for each in fitting)}. Name one by --arch."
    )


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


def _plain(name: str) -> str:
    return name.partition(":")[2]


def _alike(output: Tensor, other: Tensor) -> bool:
    return output.shape == other.shape and torch.allclose(output, other, rtol=1e-3, atol=1e-4)


def _varies(name: str, plain: str) -> bool:
    """Tell whether a name adds something to a plain one, as tf_efficientnet_b0 and resnetaa50 do."""
    letters = iter(_plain(name))
    return all(letter in letters for letter in _plain(plain))


def _output(architecture: Architecture, state: Mapping[str, Tensor]) -> Tensor:
    net = make_net(architecture.name, "cpu", num_classes=architecture.classes, **architecture.args)
    net.load_state_dict(dict(state), strict=False)
    shape = (2, architecture.channels, architecture.size, architecture.size)
    with evaluating(net):
        return net(torch.rand(shape, generator=torch.Generator().manual_seed(0)))  # type: ignore[no-any-return]
