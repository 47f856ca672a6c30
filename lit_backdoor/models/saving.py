"""Weights go back into the form that they came in: a file like the one that they were read from."""

from __future__ import annotations

import shutil
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from lit_backdoor.models.base import Classifier
from lit_backdoor.models.folders import find_weights
from lit_backdoor.weights import find_state, find_states, is_finite, is_safetensors, match_keys, read_content

__all__ = ["save_like"]

_DESCRIBE = (".json", ".md", ".txt", ".yaml", ".yml")  # files beside the weights in a folder of timm or the Hub


def save_like(classifier: Classifier, original: str | Path, target: str | Path, part: str | None = None) -> list[str]:
    """Write a classifier's weights as the file or folder that `load_classifier` read them from.

    Format, names, nesting, types and everything else in the file stay: metadata, entries that are no weights, and which
    weights share memory. Only values change. In a folder of timm or the Hub the files that describe the net are copied,
    other weights are not. The original is not touched.

    Args:
        classifier: The classifier, of the architecture that was loaded.
        original: The file or folder that was loaded.
        target: The file or folder to write; nothing may be there.
        part: Dotted place of the state dict in the file, as it was loaded; None to find it.

    Returns:
        Other weights of the same layers in the file, such as averaged ones, which stay as they were.

    Raises:
        FileExistsError: If something is in the place of ``target``.
        ValueError: If a weight cannot be written in the file's type, or two that share memory in the file differ.
    """
    place, target = Path(original), Path(target)
    if target.exists():
        raise FileExistsError(f"Expected nothing at '{target}', where the weights are to be written.")
    file = find_weights(place)
    content = read_content(file)
    with warnings.catch_warnings():  # what was guessed was said when the classifier was loaded
        warnings.simplefilter("ignore", UserWarning)
        state = find_state(content, file, part)
        own = match_keys(state, classifier.state_dict())
    _fill(own, classifier.state_dict(), file)
    if place.is_dir():
        target.mkdir()
        for each in place.iterdir():
            if each.suffix in _DESCRIBE and each.is_file():
                shutil.copyfile(each, target / each.name)
        target = target / file.name
    _save(content, file, target)
    return _left(content, own)


def _fill(own: Mapping[str, Tensor], new: Mapping[str, Tensor], file: Path) -> None:
    """Copy new values into a file's tensors, so that their types, layouts and shared memory stay."""
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(new[name])
    for name, tensor in own.items():
        wanted = new[name].detach().to("cpu", tensor.dtype)
        if wanted.is_floating_point() and not is_finite(wanted):
            raise ValueError(f"'{name}' has values that {tensor.dtype}, its type in {file}, cannot hold.")
        if not torch.equal(*(each.float() if each.itemsize == 1 else each for each in (tensor, wanted))):
            raise ValueError(
                f"Expected '{name}' to stay equal to the weights that share its memory in {file}, but they were "
                "changed apart. Save the file with separate weights."
            )


def _save(content: Any, file: Path, target: Path) -> None:
    if is_safetensors(file):
        with safe_open(file, "pt") as opened:
            metadata = opened.metadata()
        save_file(content, target, metadata)
    else:
        torch.save(content, target, _use_new_zipfile_serialization=zipfile.is_zipfile(file))


def _left(content: Any, own: Mapping[str, Tensor]) -> list[str]:
    """Name other weights of the same layers in a file: mappings as a whole, else single tensors."""
    filled, layers = {id(value) for value in own.values()}, {_layer(name) for name in own}
    states = {"": content, **dict(find_states(content))} if isinstance(content, Mapping) else {}
    left = []
    for path, state in states.items():
        tensors = {str(key): value for key, value in state.items() if isinstance(value, Tensor)}
        rest = [key for key, value in tensors.items() if id(value) not in filled and _layer(key) in layers]
        whole = path and rest and not any(id(value) in filled for value in tensors.values())
        left += [path] if whole else [f"{path}.{key}" if path else key for key in rest]
    return left


def _layer(name: str) -> tuple[str, ...]:
    """Give the end of a weight's name that its copies share: the layer's and its own."""
    return tuple(name.split(".")[-2:])
