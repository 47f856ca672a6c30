"""Keys: a stage's key is the hash of all that determines its result."""

from __future__ import annotations

import ast
import copy
import hashlib
import importlib
import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from lit_backdoor import __version__

__all__ = ["source_hash", "stage_key"]

# What changes how a run looks or how fast it goes, never what comes out.
_TRAINER = {
    "logger", "default_root_dir", "enable_progress_bar", "enable_model_summary", "enable_checkpointing",
    "num_sanity_val_steps", "limit_val_batches", "limit_test_batches", "check_val_every_n_epoch", "val_check_interval",
    "log_every_n_steps", "profiler",
}  # fmt: skip
_DATA = {"eval_batch_size", "num_workers", "suspicious"}  # the selection counts as an input
_POISONED = {"train", "questioned", "suspicious"}


def stage_key(
    config: Mapping[str, Any],
    *,
    views: tuple[str, ...],
    verb: str,
    inputs: Mapping[str, str],
    fingerprint: str,
    trust_cache: bool = False,
) -> str:
    """Hash a stage's fully resolved settings and inputs.

    Args:
        config: The resolved configuration, defaults included.
        views: The parts of the data that the stage trains on.
        verb: ``fit`` or ``predict``.
        inputs: Hash of each input bundle, by argument name.
        fingerprint: The data source's.
        trust_cache: Leave the package's version and source out, so that results of older code still count.

    Returns:
        32 hexadecimal digits.
    """
    config = copy.deepcopy(dict(config))
    data = {k: v for k, v in config["data"].get("init_args", {}).items() if k not in _DATA}
    if not _POISONED & set(views) and "data.suspicious" not in inputs:
        data.pop("attack", None)  # a stage on clean data does not depend on it, except through its inputs
    if "root" not in views and isinstance(data.get("split"), dict):
        split = data["split"].get("init_args", data["split"])
        split.pop("root", None)
        data.pop("root_source", None)
    for argument in inputs:  # their hashes count, not where they lie
        part, _, parameter = argument.partition(".")
        (data if part == "data" else config["model"].get("init_args", {})).pop(parameter, None)
    content = {
        "seed": config.get("seed_everything"),
        "trainer": {k: v for k, v in config["trainer"].items() if k not in _TRAINER and (v or k != "callbacks")},
        "model": config["model"],
        "data": {**config["data"], "init_args": data},
        "inputs": dict(inputs),
        "fingerprint": fingerprint,
        "verb": verb,
        "code": None if trust_cache else (__version__, source_hash(config["model"]["class_path"])),
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:32]


@lru_cache
def source_hash(class_path: str) -> str:
    """Hash the source of the package's modules that a class's module imports, directly or not."""
    seen: dict[str, str] = {}
    queue = [class_path.rpartition(".")[0]]
    while queue:
        name = queue.pop()
        if name in seen or not name.startswith("lit_backdoor"):
            continue
        try:
            file = importlib.import_module(name).__file__
        except ImportError:  # 'from package import name' where the name is no module
            continue
        text = Path(str(file)).read_text()
        seen[name] = hashlib.sha256(text.encode()).hexdigest()
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ImportFrom) and node.module and not node.level:
                queue += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names if alias.name.islower())]
            elif isinstance(node, ast.Import):
                queue += [alias.name for alias in node.names]
    return hashlib.sha256(json.dumps(sorted(seen.items())).encode()).hexdigest()
