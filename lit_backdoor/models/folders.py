"""Folders of timm and the Hugging Face Hub: which file holds the weights, and what ``config.json`` says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

__all__ = ["LARGEST", "find_weights", "read_config"]

LARGEST = 1024  # pixels that a file may say; a larger size, which may fill the memory, must be given

_USUAL = ("model.safetensors", "pytorch_model.bin")  # one model in two formats, as the Hub has them
_KINDS = (".safetensors", ".pt", ".pth", ".ckpt", ".bin")
_TAKEN = ("global_pool", "img_size")  # arguments of timm's builders that are taken from a folder
_READ = ("num_classes", "in_chans")  # those that the weights tell
_SHOWN = 4


def find_weights(place: Path) -> Path:
    """Give the file of weights in a folder, or the file itself.

    Raises:
        FileNotFoundError: If the folder has none.
        ValueError: If it has several, none of which has the usual name.
    """
    if not place.is_dir():
        return place
    files = [place / name for name in _USUAL if (place / name).is_file()][:1]
    files = files or sorted(file for file in place.iterdir() if file.suffix in _KINDS and file.is_file())
    if len(files) == 1:
        return files[0]
    if files:
        raise ValueError(
            f"Expected one file of weights in the folder '{place}', got {_listed([file.name for file in files])}. "
            "Name the file instead of its folder."
        )
    bundles = sorted(file.parent.name for file in place.glob("*/bundle.json"))
    held = f" It holds bundles: {_listed(bundles)}. Name one of these folders." if bundles else ""
    raise FileNotFoundError(f"Expected a file of weights in the folder '{place}', such as model.safetensors.{held}")


def read_config(place: Path) -> dict[str, Any]:
    """Read what timm notes in ``config.json``: ``architecture``, ``args``, ``mean``, ``std`` and ``size``, if it does.

    Args:
        place: A folder; or a file of weights, whose folder is read if the file has a usual name.

    Raises:
        ValueError: If the file is no such mapping, the net is made by arguments that are not taken from a file, or the
            folder holds a model of transformers.
    """
    if not place.is_dir() and place.name not in _USUAL:
        return {}
    file = (place if place.is_dir() else place.parent) / "config.json"
    try:
        content = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    except (ValueError, RecursionError) as error:
        raise ValueError(f"Expected JSON in {file}: {error}.") from error
    if not isinstance(content, dict):
        raise ValueError(f"Expected a mapping in {file}, got {type(content).__name__}.")
    if "architectures" in content and "architecture" not in content:
        raise ValueError(
            f"Expected a model of timm in {file.parent}, got one of transformers, {content['architectures']}. Save the "
            "net that it wraps as a state dict, and name its architecture by arch."
        )
    details = content.get("pretrained_cfg")
    details = details if isinstance(details, dict) else {}
    shape = details.get("input_size")
    found = {
        "architecture": content.get("architecture"),
        "args": _shaping(content.get("model_args") or {}, file) or None,
        "mean": details.get("mean"),
        "std": details.get("std"),
        "size": shape[-1] if isinstance(shape, list) and shape else None,
    }
    for key, kind in (("architecture", str), ("mean", list), ("std", list), ("size", int)):
        if not isinstance(found[key], kind | None):
            raise ValueError(f"Expected {key} in {file} as {kind.__name__}, got {found[key]!r:.80}.")
    return {key: value for key, value in found.items() if value is not None}


def _shaping(given: Any, file: Path) -> dict[str, Any]:
    """Take the arguments that shape a net but are not in its weights; dropout does nothing to a trained net."""
    if not isinstance(given, dict):
        raise ValueError(f"Expected model_args in {file} as a mapping, got {given!r:.80}.")
    args = {key: value for key, value in given.items() if value is not None and key not in _READ and "drop" not in key}
    if isinstance(sides := args.get("img_size"), list) and sides:
        args["img_size"] = sides[-1]
    for key, value in args.items():
        fits = isinstance(value, str) if key == "global_pool" else type(value) is int and 0 < value <= LARGEST
        if key not in _TAKEN or not fits:
            raise ValueError(
                f"Expected model_args in {file} to be among {', '.join(_TAKEN + _READ)}, got {key}={value!r:.80}. Name "
                "your own module.function that makes the net by --arch."
            )
    return args


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
