"""The hook split: any net cut at a layer by name, without a change to its code."""

from __future__ import annotations

import warnings
from typing import Any, cast

import torch
from torch import Tensor, nn

from lit_backdoor.errors import unknown
from lit_backdoor.models.base import evaluating

__all__ = ["check_layer", "check_split", "choose_split", "features_at", "head_from", "lay_out"]


_TRIED = 2  # images


class _Reached(Exception):
    """Ends a forward pass at the split: nothing behind it is needed."""


def features_at(net: nn.Module, split: str, inputs: Tensor) -> Tensor:
    """Give the output of the layer ``split``; what comes behind it does not run."""
    found: list[Tensor] = []

    def stop(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
        found.append(output)
        raise _Reached

    handle = net.get_submodule(split).register_forward_hook(stop)
    try:
        net(inputs)
    except _Reached:
        pass
    finally:
        handle.remove()
    if not found:
        raise ValueError(f"Expected a split that runs in a forward pass, but '{split}' did not.")
    return found[0]


def head_from(net: nn.Module, split: str, features: Tensor, dummy: Tensor) -> Tensor:
    """Run a net with the output of the layer ``split`` replaced.

    The trunk runs on ``dummy``, in eval mode and without gradients, so that neither its batch statistics nor the
    random state move; at the split every module gets its own mode back.

    Args:
        net: The net.
        split: Name of the layer.
        features: What stands in for the layer's output, ``[B, ...]``. It is not changed.
        dummy: Input of the trunk: one image, or as many as the features if the net reads the batch's size off its
            input, see `check_split`.

    Returns:
        The net's output, ``[B, ...]``.
    """
    modes = [(module, module.training) for module in net.modules()]
    gradients = torch.is_grad_enabled()

    def resume() -> None:
        torch.set_grad_enabled(gradients)
        for module, mode in modes:
            module.training = mode

    def replace(_module: nn.Module, _inputs: Any, _output: Any) -> Tensor:
        resume()
        return features.clone()  # the next layer may work in place

    handle = net.get_submodule(split).register_forward_hook(replace)
    try:
        torch.set_grad_enabled(False)
        for module, _ in modes:
            module.training = False
        return cast(Tensor, net(dummy))
    finally:
        handle.remove()
        resume()


def check_split(net: nn.Module, split: str, shape: tuple[int, ...], outputs: int | None = None) -> bool:
    """Check that a net can be cut at a layer: that everything behind it follows from its output.

    Some nets read the batch's size off their input and use it behind the layer, such as ``x.view(batch, -1)``.

    Args:
        net: The net; left as it is.
        split: Name of the layer.
        shape: Shape of one input, ``[C, H, W]``.
        outputs: Number of values that the net gives for one input, if that is to be checked too.

    Returns:
        Whether `head_from` needs a dummy of as many images as the features, since the net is such a one.

    Raises:
        ValueError: If there is no such layer, it does not run exactly once, its output is not a tensor or a skip
            connection goes around it; names layers that can be used.
    """
    names = check_layer(net, split)
    with evaluating(net):
        if outputs is not None:
            _check_outputs(net, shape, outputs)
        reason, whole_batch = _cut(net, split, shape)
        if reason is None:
            return whole_batch
        usable = [name for name in names if name.count(".") < 2 and _cut(net, name, shape)[0] is None]
    advice = f"Give one of {', '.join(usable[-6:])}" if usable else "No layer of this net can be its split"
    raise ValueError(f"Expected a split through which everything flows, got layer '{split}': {reason}. {advice}.")


def check_layer(net: nn.Module, name: str) -> list[str]:
    """Check that a net has a layer of that name; gives the names of all.

    Raises:
        ValueError: If there is none.
    """
    names = [known for known, _ in net.named_modules() if known]
    if name not in names:
        raise unknown("layer", name, names)
    return names


def choose_split(net: nn.Module, shape: tuple[int, ...]) -> str:
    """Choose the last part of a net before its classifier through which everything flows.

    Args:
        net: The net; left as it is.
        shape: Shape of one input, ``[C, H, W]``.

    Raises:
        ValueError: If there is none.
    """
    prefix, parts = "", net
    while len(weighted := [name for name, part in parts.named_children() if any(True for _ in part.parameters())]) == 1:
        prefix, parts = f"{prefix}{weighted[0]}.", parts.get_submodule(weighted[0])
    with evaluating(net):
        for name in reversed(weighted[:-1]):
            if _cut(net, prefix + name, shape)[0] is None:
                return prefix + name
    raise ValueError(f"Expected a layer of {type(net).__name__} through which everything flows, found none. Set split.")


def lay_out(net: nn.Module, shape: tuple[int, ...], layout: torch.memory_format) -> torch.memory_format:
    """Lay out a net's weights, channels last only if it runs so: one that flattens by ``view`` does not.

    Args:
        net: The net; its weights are laid out in place.
        shape: Shape of one input, ``[C, H, W]``.
        layout: The layout to try.

    Returns:
        The layout that the net has.
    """
    net.to(memory_format=layout)
    if layout == torch.contiguous_format:
        return layout
    try:
        with evaluating(net):
            net(_noise(net, shape, 2).contiguous(memory_format=layout))
    except RuntimeError as error:
        if "view size is not compatible" not in str(error):
            raise
        net.to(memory_format=torch.contiguous_format)
        return torch.contiguous_format
    return layout


def _noise(net: nn.Module, shape: tuple[int, ...], batch: int) -> Tensor:
    noise = torch.randn(batch, *shape, generator=torch.Generator().manual_seed(0))
    return noise.to(next(net.parameters(), noise))


def _check_outputs(net: nn.Module, shape: tuple[int, ...], outputs: int) -> None:
    result = net(_noise(net, shape, 2))
    if not isinstance(result, Tensor) or result.shape != (2, outputs):
        got = tuple(result.shape) if isinstance(result, Tensor) else type(result).__name__
        raise ValueError(f"Expected {type(net).__name__} to give (2, {outputs}) logits for 2 images, got {got}.")
    total = result.sum(1), result.exp().sum(1)
    kinds = [bool((result >= 0).all()), bool((result <= 0).all())]
    ends = [kind and torch.allclose(t, torch.ones_like(t), atol=1e-4) for kind, t in zip(kinds, total, strict=True)]
    if outputs > 1 and any(ends):
        found = "softmax, so it gives probabilities" if ends[0] else "log-softmax, so it gives log-probabilities"
        warnings.warn(
            f"Expected logits, but {type(net).__name__} ends in {found}: losses and detectors would apply another "
            "softmax. Give the net without it, such as net[:-1] for a Sequential, or put nn.Identity() in its place.",
            stacklevel=5,
        )


def _cut(net: nn.Module, split: str, shape: tuple[int, ...]) -> tuple[str | None, bool]:
    """Try a cut with dummies of one image, then of as many as the features; gives what is wrong, and which it was."""
    if _fault(net, split, shape, 1) is None:
        return None, False
    return _fault(net, split, shape, _TRIED), True


def _fault(net: nn.Module, split: str, shape: tuple[int, ...], dummies: int) -> str | None:
    noise = _noise(net, shape, _TRIED + 2 * dummies)
    images, *trunks = torch.split(noise, [_TRIED, dummies, dummies])
    outputs: list[Any] = []
    handle = net.get_submodule(split).register_forward_hook(lambda _m, _i, output: outputs.append(output))
    try:
        expected = net(images)
    finally:
        handle.remove()
    if not isinstance(expected, Tensor):
        raise ValueError(
            f"Expected {type(net).__name__} to give logits as a tensor, got {type(expected).__name__}. Give a net that "
            "does, such as one that takes them out of it."
        )
    if len(outputs) != 1:
        return f"it runs {len(outputs)} times in a forward pass"
    if not isinstance(outputs[0], Tensor):
        return f"its output is a {type(outputs[0]).__name__}, not a tensor"
    features = features_at(net, split, images)
    if features.shape[0] != len(images):
        return f"its output {tuple(features.shape)} does not begin with the batch"
    try:
        first, second = (head_from(net, split, features, trunk) for trunk in trunks)
    except (RuntimeError, ValueError, AssertionError) as error:
        return f"the net does not run on its output alone ({str(error).splitlines()[0][:120]})"
    scale = float(expected.abs().max())
    if first.shape != expected.shape or not torch.allclose(first, second, rtol=1e-6, atol=1e-7 * scale):
        return "a skip connection goes around it"
    if not torch.allclose(first, expected, rtol=1e-3, atol=1e-4 * scale):
        return f"head(features(x)) differs from f(x) by {float((first - expected).abs().max()):.2g}"
    return None
