"""Folders of timm and the Hugging Face Hub: which file holds the weights, and what ``config.json`` says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

__all__ = ["find_weights", "read_config"]

_USUAL = ("model.safetensors", "pytorch_model.bin")  # one model in two formats, as the Hub has them
_KINDS = (".safetensors", ".pt", ".pth", ".ckpt", ".bin")
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
    """Read what timm notes in ``config.json``: ``architecture``, ``mean``, ``std`` and ``size``, as far as it does.

    Args:
        place: A folder; or a file of weights, whose folder is read if the file has a usual name.

    Raises:
        ValueError: If the file is no such mapping, or the folder holds a model of transformers.
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
        "mean": details.get("mean"),
        "std": details.get("std"),
        "size": shape[-1] if isinstance(shape, list) and shape else None,
    }
    for key, kind in (("architecture", str), ("mean", list), ("std", list), ("size", int)):
        if not isinstance(found[key], kind | None):
            raise ValueError(f"Expected {key} in {file} as {kind.__name__}, got {found[key]!r:.80}.")
    return {key: value for key, value in found.items() if value is not None}


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
