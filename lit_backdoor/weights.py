"""The one reader of weights from elsewhere, and the one check of weights before a net takes them."""

from __future__ import annotations

import argparse
import contextlib
import pathlib
import pickle
import re
import tarfile
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

__all__ = [
    "find_state",
    "find_states",
    "is_finite",
    "is_safetensors",
    "layers_of",
    "load_state",
    "load_weights",
    "match_keys",
    "misfits",
    "prefixes",
    "read_content",
    "read_weights",
]

# Where projects keep a classifier's weights, in the order of preference. WaNet's and IAD's releases: netC.
_NAMES = ("state_dict", "model_state_dict", "model", "net", "netC", "classifier", "weights", "params")
_EMA = re.compile(r"ema|teacher|average", re.IGNORECASE)
_OTHERS = re.compile(r"optim|sched|scaler|rng|callbacks|loops|hyper|args|config", re.IGNORECASE)
_LOSS = re.compile(r"loss|criterion|metric", re.IGNORECASE)

# What numpy's scalars and arrays of numbers are pickled by, under their old and new names; BackdoorBench's
# attack_result.pt has them beside the weights. All of them only make numbers and arrays.
_NUMPY: list[Any] = [
    np.dtype,
    np.ndarray,
    *{type(np.dtype(code)) for code in "?bhilqBHILQefdSU"},
]
for _value in (np.float64(0), np.zeros(1)):
    _function: Any = _value.__reduce__()[0]  # scalar and _reconstruct, which have no public name
    _NUMPY += [(_function, f"numpy.{core}.multiarray.{_function.__name__}") for core in ("core", "_core")]

# Options and paths, which trainings write beside the weights; making them does nothing else.
_PLAIN: list[Any] = [
    argparse.Namespace,
    *((Path, f"pathlib.{module}PosixPath") for module in ("", "_local.")),
    *((pathlib.PureWindowsPath, f"pathlib.{module}WindowsPath") for module in ("", "_local.")),
]


def read_weights(path: str | Path, part: str | None = None) -> dict[str, Tensor]:
    """Read a state dict from a file without running anything in it.

    Takes safetensors files, under any name, and what ``torch.save`` writes as far as it holds tensors, numpy numbers,
    plain values, options of argparse and paths.
    A state dict nested under a common name (``state_dict``, ``model``, ``netC`` …) is found; averaged weights beside
    the raw ones are named in a warning. TorchScript, exported programs and compressed archives are refused.

    Args:
        path: The file.
        part: Dotted place of the state dict in the file, such as ``"model"`` or ``"ema.module"``; None to find it.

    Raises:
        FileNotFoundError: If there is no file.
        ValueError: If the file is damaged, holds no state dict or several, or would execute code; names what it would
            call.
    """
    return find_state(read_content(path), path, part)


def read_content(path: str | Path) -> Any:
    """Read all that a file of weights holds without running anything in it; raises as `read_weights` does."""
    file = Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"Expected a file with weights at '{file}', found none.")
    try:
        if is_safetensors(file):
            content: Any = load_file(file)
        else:
            _refuse_archive(file)
            with torch.serialization.safe_globals([*_NUMPY, *_PLAIN]):
                content = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{refusal(str(error), file)} Where the file was made, save the weights alone: "
            "torch.save(model.state_dict(), FILE)."
        ) from error
    except Exception as error:  # the readers of damaged files raise errors of many kinds
        first = (str(error).splitlines() or ["it is empty."])[0]
        raise ValueError(f"The weights file {file} is damaged or of a kind that is not read: {first}") from error
    return content


def is_safetensors(file: Path) -> bool:
    """Tell a safetensors file by its name, or by how it begins: the length of a JSON text, and that."""
    if file.suffix == ".safetensors":
        return True
    with file.open("rb") as opened:
        begin = opened.read(9)
    return begin[8:] == b"{" and 0 < int.from_bytes(begin[:8], "little") <= file.stat().st_size - 8


def refusal(message: str, file: str | Path = "") -> str:
    """Say why torch refused a file: the name that would have been called, if it gave one."""
    named = re.search(r"(?:GLOBAL|global|function|class) ([\w]+(?:\.[\w]+)+)", message)
    what = f"it names '{named.group(1)}', which would be executed" if named else "it is not a plain checkpoint"
    return f"The checkpoint {f'{file} ' if file else ''}was refused: {what}. Only tensors and plain values are loaded."


def _refuse_archive(file: Path) -> None:
    """Refuse programs, and an archive that unpacks to more than its size; torch.save stores each part as it is."""
    if not zipfile.is_zipfile(file):
        with contextlib.suppress(tarfile.TarError), tarfile.open(file, "r:"):
            raise ValueError("it is a tar archive, which torch would unpack. Load and save it with a newer torch.")
        return
    with zipfile.ZipFile(file) as archive:
        unpacked = sum(each.file_size for each in archive.infolist())
        if any("/code/" in each.filename for each in archive.infolist()):
            raise ValueError(
                "it is TorchScript, a program. Where it was made, save the weights alone: "
                "torch.save(model.state_dict(), FILE)."
            )
    size = file.stat().st_size
    if unpacked > size:
        raise ValueError(f"it unpacks to {unpacked:,} bytes from {size:,}, but torch.save does not compress.")


def find_state(content: Any, file: str | Path, part: str | None) -> dict[str, Tensor]:
    """Find the state dict in what a file holds, as `read_weights` does; its tensors are the content's own."""
    if isinstance(content, Mapping) and content and all(isinstance(value, Tensor) for value in content.values()):
        found: dict[str, Mapping[Any, Any]] = {"": content}
    else:
        found = dict(find_states(content))
    if part is not None:
        return _part_of(found, part, file)
    raw = [name for name in found if not _EMA.search(name)] or list(found)
    if not raw and isinstance(content, Mapping):
        found, raw = {"": content}, [""]  # loose tensors, if any
    usual = ([name for name in raw if name.rpartition(".")[2] == wanted] for wanted in _NAMES)
    likely = next(filter(None, usual), raw)
    if len(likely) > 1:
        raise ValueError(
            f"Expected one state dict in {file}, found several: {', '.join(map(repr, likely))}. Name one by part."
        )
    for averaged in [name for name in found if name not in raw][:1]:
        warnings.warn(
            f"{file} holds averaged weights under '{averaged}' beside the raw ones under '{likely[0]}', which are "
            f"taken. For the averaged ones set part='{averaged}'.",
            stacklevel=4,
        )
    tensors = _tensors(found[likely[0]]) if likely else {}
    if not tensors:
        raise ValueError(f"Expected a state dict (names to tensors) in {file}, got {type(content).__name__}.")
    return tensors


def _tensors(state: Mapping[Any, Any]) -> dict[str, Tensor]:
    """Give a mapping's tensors by name, without what torch.compile adds to the names of layers."""
    return {str(key).replace("_orig_mod.", ""): value for key, value in state.items() if isinstance(value, Tensor)}


def find_states(content: Any, path: str = "", depth: int = 0) -> Iterator[tuple[str, Mapping[Any, Any]]]:
    """Find the mappings of names to tensors in a checkpoint, but for those of optimizers and the like."""
    if not isinstance(content, Mapping) or depth > 4:
        return
    if path and any(isinstance(value, Tensor) and isinstance(key, str) for key, value in content.items()):
        yield path, content
    for name, value in content.items():
        if isinstance(name, str) and not _OTHERS.search(name):
            yield from find_states(value, f"{path}.{name}" if path else name, depth + 1)


def layers_of(content: Any, state: Mapping[str, Tensor]) -> set[str]:
    """List the layers of a saved net, also those without weights: torch notes them with a state dict.

    Args:
        content: What the file holds.
        state: The state dict that was found in it.

    Returns:
        Their names in the file; empty if it does not say.
    """
    first = next(iter(state.values()))
    for found in (content, *(each for _, each in find_states(content))):
        if isinstance(found, Mapping) and any(value is first for value in found.values()):
            noted = getattr(found, "_metadata", None)
            return {name for name in noted if isinstance(name, str)} if isinstance(noted, Mapping) else set()
    return set()


def _part_of(found: Mapping[str, Mapping[Any, Any]], part: str, file: str | Path) -> dict[str, Tensor]:
    """Give the tensors under a dotted place, which may be that of a mapping or the beginning of its keys."""
    for path, state in found.items():
        for prefix in (f"{path}.", "") if path else ("",):
            named = {f"{prefix}{key}": value for key, value in state.items() if isinstance(value, Tensor)}
            under = {k.removeprefix(f"{part}."): v for k, v in named.items() if k.startswith(f"{part}.")}
            if under:
                return _tensors(under)
    raise ValueError(f"Expected weights under '{part}' in {file}, found state dicts: {', '.join(map(repr, found))}.")


def match_keys(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename keys by removing one prefix and adding another, whichever fits the wanted names best.

    Keys without that prefix belong to something else, such as a loss or a second net, and are left out; a warning names
    them unless they are a loss's.

    Args:
        state: The weights as read.
        wanted: The state dict of the net that they are for.
    """
    shared = [prefix for prefix in prefixes(wanted, 1) if all(key.startswith(prefix) for key in wanted)]
    fits: dict[str, tuple[int, str]] = {}  # for each prefix to remove: how many names fit, with which one added
    for old in ["", *prefixes(state, 4)]:
        rest = [key.removeprefix(old) for key in state if key.startswith(old)]
        fits[old] = max((sum(new + key in wanted for key in rest), new) for new in ["", *shared])
    most = max(count for count, _ in fits.values())
    if most == 0:
        return dict(state)
    best = sorted((old for old in fits if fits[old][0] == most), key=lambda old: (bool(_EMA.search(old)), old))
    taken = best[0]
    left = [key for key in state if not key.startswith(taken) and not _LOSS.search(key)]
    if len(best) > 1:
        warnings.warn(
            f"The weights hold several such nets, under {', '.join(map(repr, best))}; the first is taken. Set part for "
            "another.",
            stacklevel=3,
        )
    elif left:
        warnings.warn(
            f"Only the weights under '{taken}' are taken; {len(left)} others are left out, such as '{left[0]}'. If "
            "they normalize the images, set mean and std.",
            stacklevel=3,
        )
    added = fits[taken][1]
    renamed = {added + key.removeprefix(taken): value for key, value in state.items() if key.startswith(taken)}
    return {key: value for key, value in renamed.items() if key in wanted or not _LOSS.search(key)}


def prefixes(names: Iterable[str], depth: int) -> list[str]:
    """List the dotted beginnings of names, up to a number of parts."""
    parts = (name.split(".")[:-1] for name in names)
    return sorted({".".join(part[:end]) + "." for part in parts for end in range(1, min(depth, len(part)) + 1)})


def misfits(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, list[str]]:
    """List why weights do not fit a net: names, shapes, types, values that are not finite. Empty if they fit.

    Args:
        state: The weights.
        wanted: The state dict of the net, which may be on the meta device.
    """
    both = sorted(set(state) & set(wanted))
    alike = [key for key in both if state[key].shape == wanted[key].shape]
    typed = [key for key in alike if _is_of_type(state[key], wanted[key])]
    problems = {
        # old files lack the counts of batches, and torch does without them
        "missing": sorted(key for key in set(wanted) - set(state) if not key.endswith("num_batches_tracked")),
        "unexpected": sorted(set(state) - set(wanted)),
        "of another shape": [
            f"{key} {tuple(state[key].shape)} for {tuple(wanted[key].shape)}" for key in both if key not in alike
        ],
        "of another type": [f"{key} {state[key].dtype}" for key in alike if key not in typed],
        "not finite": [key for key in typed if state[key].is_floating_point() and not is_finite(state[key])],
    }
    return {what: keys for what, keys in problems.items() if keys}


def is_finite(value: Tensor) -> bool:
    """Tell whether all values are finite; torch cannot ask types of 8 bits."""
    return bool((value.float() if value.itemsize == 1 else value).isfinite().all())


def _is_of_type(value: Tensor, wanted: Tensor) -> bool:
    """Tell whether a value can be taken without a change of its kind: dense, and real, whole or logical as wanted."""
    kinds = [(t.is_floating_point(), t.is_complex(), t.dtype == torch.bool) for t in (value, wanted)]
    return kinds[0] == kinds[1] and value.layout == torch.strided and not value.is_quantized


def load_state(net: nn.Module, state: Mapping[str, Tensor], source: str, advice: str) -> None:
    """Load weights into a net, all of them or none. Every way in ends here: bundles, and files from elsewhere.

    Args:
        net: The net.
        state: Its weights, by the net's own names.
        source: What they are from, for the error.
        advice: What to do where they do not fit.

    Raises:
        ValueError: If names, shapes or types do not fit, or a value is not finite; lists which.
    """
    wanted = net.state_dict()
    state = _with_shared(state, wanted)
    problems = misfits(state, wanted)
    if problems:
        said = "; ".join(
            f"{len(keys)} {what}: {', '.join(keys[:5])}{' …' if len(keys) > 5 else ''}"
            for what, keys in problems.items()
        )
        raise ValueError(f"The weights in {source} do not fit the net. {said}. {advice}")
    fitting: Any = OrderedDict({**wanted, **state})  # old files lack counts of batches
    fitting._metadata = getattr(wanted, "_metadata", None)  # versions of layers: names and shapes are the net's own
    net.load_state_dict(fitting)


def _with_shared(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Add weights that share another one's memory in the net: safetensors keeps one name of such."""
    stored = {_memory(wanted[name]): name for name in state if name in wanted}
    shared = {
        name: state[stored[_memory(value)]]
        for name, value in wanted.items()
        if name not in state and value.numel() and not value.is_meta and _memory(value) in stored
    }
    return {**state, **shared}


def _memory(value: Tensor) -> tuple[Any, ...]:
    return value.device, value.data_ptr(), value.shape, value.stride()


def load_weights(net: nn.Module, path: str | Path, part: str | None = None) -> None:
    """Load weights from elsewhere into a net, all of them or none.

    Args:
        net: The net.
        path: A file that `read_weights` reads.
        part: Dotted place of the state dict in the file; None to find it.

    Raises:
        FileNotFoundError: If there is no file.
        ValueError: If names, shapes or types do not fit, or a value is not finite; lists which.
    """
    state = match_keys(read_weights(path, part), net.state_dict())
    load_state(net, state, str(path), "Check the architecture and its width.")
