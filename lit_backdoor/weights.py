"""The one reader of weights from elsewhere: safetensors, or a pickle of which nothing is executed."""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

__all__ = ["load_weights", "match_keys", "read_weights"]

_NESTED = ("state_dict", "model_state_dict", "model", "net", "weights")
_PREFIXES = ("module.", "model.", "net.", "classifier.", "backbone.", "encoder.", "_orig_mod.")


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """Read a state dict from a file, without running anything that stands in it.

    Takes safetensors files, and what ``torch.save`` writes as far as it holds tensors and plain values; a state dict
    nested under a common name (``state_dict``, ``model`` …) is found. TorchScript and exported programs are refused.

    Raises:
        FileNotFoundError: If there is no file.
        ValueError: If the file is damaged, holds no state dict, or would execute code; names what it would call.
    """
    file = Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"Expected a file with weights at '{file}', found none.")
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        content = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(refusal(str(error), file)) from error
    except Exception as error:  # the readers of damaged files raise errors of many kinds
        first = (str(error).splitlines() or [""])[0]
        raise ValueError(f"The weights file {file} is damaged or of a kind that is not read: {first}") from error
    return _find_state(content, file)


def refusal(message: str, file: str | Path = "") -> str:
    """Say why torch refused a file: the name that would have been called, where it told one."""
    named = re.search(r"(?:GLOBAL|global|function|class) ([\w]+(?:\.[\w]+)+)", message)
    what = f"it names '{named.group(1)}', which would be executed" if named else "it is not a plain checkpoint"
    return f"The checkpoint {f'{file} ' if file else ''}was refused: {what}. Only tensors and plain values are loaded."


def _find_state(content: Any, file: Path) -> dict[str, Tensor]:
    if isinstance(content, Mapping):
        if content and all(isinstance(value, Tensor) for value in content.values()):
            return {str(key): value for key, value in content.items()}
        for name in _NESTED:
            if isinstance(content.get(name), Mapping):
                return _find_state(content[name], file)
        tensors = {str(key): value for key, value in content.items() if isinstance(value, Tensor)}
        if tensors:
            return tensors
    raise ValueError(f"Expected a state dict (names to tensors) in {file}, got {type(content).__name__}.")


def match_keys(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename keys by taking off or putting on common prefixes, whichever fits the wanted names best.

    Args:
        state: The weights as read.
        wanted: The state dict of the net that they are for.
    """
    stripped = dict(state)
    for _ in range(4):  # wrappers nest: module.model.net.…
        shared = next((p for p in _PREFIXES if stripped and all(key.startswith(p) for key in stripped)), None)
        if shared is None or set(stripped) & set(wanted):
            break
        stripped = {key.removeprefix(shared): value for key, value in stripped.items()}
    candidates = [dict(state), stripped]
    candidates += [{f"{p}{key}": value for key, value in stripped.items()} for p in _PREFIXES]
    candidates += [{key.removeprefix(p): value for key, value in state.items() if key.startswith(p)} for p in _PREFIXES]
    return max(candidates, key=lambda candidate: len(set(candidate) & set(wanted)))


def load_weights(net: nn.Module, path: str | Path) -> None:
    """Load weights from elsewhere into a net, all of them or none.

    Raises:
        FileNotFoundError: If there is no file.
        ValueError: If names, shapes or types do not fit; lists what is missing, unexpected or of another shape or type.
    """
    wanted = net.state_dict()
    state = match_keys(read_weights(path), wanted)
    problems = {
        # old files lack the counts of batches, and torch does without them
        "missing": sorted(key for key in set(wanted) - set(state) if not key.endswith("num_batches_tracked")),
        "unexpected": sorted(set(state) - set(wanted)),
        "of another shape": [
            f"{key} {tuple(state[key].shape)} for {tuple(wanted[key].shape)}"
            for key in sorted(set(state) & set(wanted))
            if state[key].shape != wanted[key].shape
        ],
        "of another type": [
            f"{key} {state[key].dtype}"
            for key in sorted(set(state) & set(wanted))
            if wanted[key].is_floating_point() and not state[key].is_floating_point()  # such as quantized ones
        ],
    }
    if any(problems.values()):
        said = "; ".join(
            f"{len(keys)} {what}: {', '.join(keys[:5])}{' …' if len(keys) > 5 else ''}"
            for what, keys in problems.items()
            if keys
        )
        raise ValueError(f"The weights in {path} do not fit the net. {said}. Check the architecture and its width.")
    net.load_state_dict(state)
