"""Bundles: what one stage produces and the next takes. A folder with ``bundle.json`` and ``weights.safetensors``.

Nothing in a bundle is code. Writing goes to a temporary folder that takes its place at the end, so a bundle is there
whole or not at all; reading checks kind, format and hashes before anything is built.
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from lit_backdoor import __version__
from lit_backdoor.budget import Budget
from lit_backdoor.disk import check_bundle_folder, part_of, place, remove_bundle, tidy
from lit_backdoor.errors import one_of
from lit_backdoor.recipe import Recorded, rebuild, recipe
from lit_backdoor.weights import load_state

__all__ = ["FORMAT", "KINDS", "Bundle", "json_ready", "open_bundle", "save_bundle"]

FORMAT = 1
KINDS = ("suspect", "attack", "generator", "trigger", "detector", "decoder", "selection", "targets")
_JSON, _WEIGHTS = "bundle.json", "weights.safetensors"
_LARGEST = 2**24  # bytes of bundle.json; a thousand classes and their numbers are a hundredth of it
_SHAPE = {"kind": str, "hash": str, "weights": str, "tied": dict, "inputs": dict, "numbers": dict}

_HASHED: dict[tuple[int, int, int, int], str] = {}  # of weights that this process has read
_SETTLED = 20_000_000  # nanoseconds; clocks of file systems tick every 4 to 10 ms


@dataclass(frozen=True)
class Bundle:
    """An opened bundle; its hashes were checked.

    Attributes:
        path: Its folder.
        kind: One of `KINDS`.
        hash: SHA-256 over everything that determines it, weights included.
        info: The contents of ``bundle.json``.
    """

    path: Path
    kind: str
    hash: str
    info: dict[str, Any]

    @property
    def numbers(self) -> dict[str, Any]:
        """Numbers that the stage left beside its result."""
        return dict(self.info["numbers"])

    def tensors(self) -> dict[str, Tensor]:
        """Read the tensors that are not weights of a net, such as a selection's ``indices``."""
        return {k.removeprefix("tensor."): v for k, v in self._read().items() if k.startswith("tensor.")}

    def build(self, trust: Iterable[str] = ()) -> nn.Module:
        """Build the net and load its weights; it comes in eval mode, on the CPU.

        Args:
            trust: Packages beside this one whose classes and factories the bundle may name.

        Raises:
            ValueError: If the bundle holds no net, or names something that is not allowed.
        """
        if self.info["model"] is None:
            raise ValueError(f"The {self.kind} bundle {self.path} holds tensors, not a net.")
        weights = self._read()
        module = _build(self.info["model"], trust, weights)
        if not isinstance(module, nn.Module):
            raise ValueError(f"Expected the bundle {self.path} to name a net, got {type(module).__name__}.")
        self._load_into(module, "model.", weights)
        return module.eval()

    def attack(self, trust: Iterable[str] = ()) -> Any:
        """Rebuild the attack that the bundle was made under, or None where it is not known."""
        if self.info["attack"] is None:
            return None
        weights = self._read()
        attack = _build(self.info["attack"], trust, weights)
        if not isinstance(getattr(attack, "trigger", None), nn.Module):
            raise ValueError(f"Expected the bundle {self.path} to name an attack, got {type(attack).__name__}.")
        self._load_into(attack.trigger, "trigger.", weights)
        return attack

    def _read(self) -> dict[str, Tensor]:
        try:
            weights = load_file(self.path / _WEIGHTS)
        except SafetensorError as error:  # its hash fits, but whoever altered it may have hashed it anew
            raise ValueError(
                f"The bundle {self.path} is damaged: {_WEIGHTS} cannot be read ({error}). Make it anew."
            ) from error
        return {**weights, **{alias: weights[name] for alias, name in self.info["tied"].items() if name in weights}}

    def _load_into(self, module: nn.Module, prefix: str, weights: Mapping[str, Tensor]) -> None:
        own = {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)}
        if callable(make_room := getattr(module, "make_room", None)):
            make_room(own)
        load_state(module, own, f"the bundle {self.path}", "Make it anew.")


def _build(described: Any, trust: Iterable[str], weights: Mapping[str, Tensor]) -> Any:
    """Build what a bundle describes, within what its weights can fill."""
    with Budget(sum(value.numel() for value in weights.values()), len(weights)):
        return rebuild(described, trust)


def save_bundle(
    path: str | Path,
    *,
    kind: str,
    module: nn.Module | None = None,
    tensors: Mapping[str, Tensor] | None = None,
    numbers: Mapping[str, Any] | None = None,
    attack: Any = None,
    inputs: Mapping[str, Any] | None = None,
    key: str | None = None,
    meta: Mapping[str, Any] | None = None,
) -> Bundle:
    """Write a bundle; an older one in its place is replaced.

    Args:
        path: Folder to write.
        kind: One of `KINDS`.
        module: The net, a `Recorded` one, whose recipe and weights are written.
        tensors: Tensors to keep beside or instead of a net.
        numbers: Numbers and small lists to keep, JSON values.
        attack: The attack it was made under, where known; a learned trigger's weights are kept too.
        inputs: For each bundle it was made from: its hash and its path relative to this bundle.
        key: Hash of the settings that made it.
        meta: Further JSON values, such as class names.

    Raises:
        ValueError: If the kind is unknown, the module cannot be written down, or the folder holds what is no bundle.
        OSError: If the disk is full or not writable; nothing is left behind and an older bundle stays.
    """
    one_of("kind of bundle", kind, KINDS)
    if module is not None and not isinstance(module, Recorded):
        raise ValueError(
            f"Expected a net that remembers how it was made (a Classifier, UNet or other Recorded module), got "
            f"{type(module).__name__}. Wrap it: lit_backdoor.models.ForeignClassifier(factory='package.function', …)."
        )
    state = {f"tensor.{k}": v for k, v in (tensors or {}).items()}
    state |= {f"model.{k}": v for k, v in (module.state_dict() if module is not None else {}).items()}
    state |= {f"trigger.{k}": v for k, v in (attack.trigger.state_dict() if attack is not None else {}).items()}
    state, tied = _untie({k: v.detach() for k, v in state.items()})
    info: dict[str, Any] = {
        "format": FORMAT,
        "kind": kind,
        "version": __version__,
        "model": recipe(module) if module is not None else None,
        "attack": recipe(attack) if attack is not None else None,
        "numbers": json_ready(dict(numbers or {})),
        "inputs": dict(inputs or {}),
        "key": key,
        "tied": tied,
        **(meta or {}),
    }
    target = Path(path).absolute()
    tidy(target)
    check_bundle_folder(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    part = part_of(target)
    part.mkdir()
    try:
        save_file(state, part / _WEIGHTS)
        (part / _WEIGHTS).chmod(0o666 & ~_umask())  # safetensors makes it private; a group shares its results
        info["weights"] = _sha256(part / _WEIGHTS)
        info["hash"] = _hash(info)
        (part / _JSON).write_text(json.dumps(info, indent=1, allow_nan=False) + "\n")
        place(part, target)
    except (OSError, SafetensorError) as error:
        full = getattr(error, "errno", None) == errno.ENOSPC or "No space left" in str(error)
        reason = "the disk is full" if full else str(error)
        raise OSError(errno.ENOSPC if full else errno.EIO, f"Could not write the bundle {target}: {reason}") from error
    finally:
        remove_bundle(part)  # gone already where all went well
    return Bundle(Path(path), kind, info["hash"], info)


def open_bundle(path: str | Path, kind: str | tuple[str, ...] | None = None) -> Bundle:
    """Open a bundle and check that it is whole.

    Args:
        path: Its folder.
        kind: The kind that is needed, or several that would do; None takes any.

    Raises:
        FileNotFoundError: If there is none.
        ValueError: If it is truncated, altered, of another format version or kind.
    """
    folder = Path(path)
    if not (folder / _JSON).is_file():
        raise FileNotFoundError(f"Expected a bundle (a folder with {_JSON}) at '{folder}', found none.")
    info = _read_info(folder)
    kinds = KINDS if kind is None else (kind,) if isinstance(kind, str) else kind
    if info["kind"] not in kinds:
        raise ValueError(f"Expected a bundle of kind {' or '.join(map(repr, kinds))}, got {info['kind']!r} at {folder}")
    if not (folder / _WEIGHTS).is_file():
        raise ValueError(f"The bundle {folder} is damaged: {_WEIGHTS} is missing. Make it anew.")
    if info["hash"] != _hash(info):
        raise ValueError(f"The bundle {folder} was altered: {_JSON} does not match its hash. Make it anew.")
    if info["weights"] != _sha256(folder / _WEIGHTS):
        raise ValueError(f"The bundle {folder} is damaged: {_WEIGHTS} is truncated or was altered. Make it anew.")
    return Bundle(folder, info["kind"], info["hash"], info)


def json_ready(value: Any) -> Any:
    """Replace NaN and infinity, which JSON cannot say, by None, also inside lists and mappings."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): json_ready(item) for key, item in value.items()}
    return [json_ready(item) for item in value] if isinstance(value, list | tuple) else value


def _read_info(folder: Path) -> dict[str, Any]:
    """Read ``bundle.json`` and check its shape, which a hash cannot: who altered it may have hashed it anew."""
    damaged = f"The bundle {folder} is damaged: {_JSON} is truncated or was altered. Make it anew."
    try:
        if (folder / _JSON).stat().st_size > _LARGEST:
            raise ValueError(damaged)
        info: dict[str, Any] = json.loads((folder / _JSON).read_text())
        stated = info["format"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(damaged) from error
    if stated != FORMAT:
        raise ValueError(f"Expected bundle format {FORMAT}, got {stated!r} in {folder}. Make it with this version.")
    whole = all(isinstance(info.get(name), kind) for name, kind in _SHAPE.items()) and {"model", "attack"} <= set(info)
    whole = whole and all(isinstance(name, str) for name in info["tied"].values())
    names = info.get("class_names", [])
    if not isinstance(names, list) or not all(isinstance(n, str) for n in names) or len(set(names)) < len(names):
        raise ValueError(f"Expected class_names in {folder / _JSON} as a list of different texts, got {names!r:.200}.")
    noted = whole and all(isinstance(source, dict) for source in info["inputs"].values())
    if not noted or not all(isinstance(s.get(k), str) for s in info["inputs"].values() for k in ("hash", "path")):
        raise ValueError(damaged)
    one_of("kind of bundle", info["kind"], KINDS)
    return info


def _untie(state: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Keep one of the tensors that share memory, and say which names stand for it."""
    first: dict[tuple[Any, ...], str] = {}
    kept, tied = {}, {}
    for name, value in state.items():
        where = (value.device, value.data_ptr(), value.shape, value.stride(), value.dtype)
        if value.numel() and where in first:
            tied[name] = first[where]
        else:
            first[where] = name
            kept[name] = value.cpu().clone(memory_format=torch.contiguous_format)
    return kept, tied


def _hash(info: Mapping[str, Any]) -> str:
    # Left out: the version, since a release that changes nothing leaves a bundle what it was, and where inputs lie.
    counted = {k: v for k, v in info.items() if k not in ("hash", "version")}
    counted["inputs"] = {name: source["hash"] for name, source in info["inputs"].items()}
    return hashlib.sha256(json.dumps(counted, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _sha256(path: Path) -> str:
    """Hash a file, once for as long as it stays the same; one that changed a moment ago may still be changing."""
    state = path.stat()
    mark = (state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns)
    if mark not in _HASHED or time.time_ns() - state.st_mtime_ns < _SETTLED:
        with path.open("rb") as file:
            _HASHED[mark] = hashlib.file_digest(file, "sha256").hexdigest()
    return _HASHED[mark]


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
