"""Numbers of tests, each measured once: kept with the chain and in the store under all that they depend on."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lit_backdoor.chain.folders import mark_work, write_whole
from lit_backdoor.chain.store import Store

__all__ = ["measured_once"]


def measured_once(
    mark: Mapping[str, Any], key: str, file: Path, store: Store | None, measure: Callable[[], dict[str, Any]]
) -> dict[str, Any]:
    """Give the numbers of a bundle's test, from a file, from the store, or by measuring.

    Args:
        mark: What they depend on: bundle, data, attack, code.
        key: Key of the stage that made the bundle.
        file: Where this chain keeps them, in the stage's working folder.
        store: Where other chains find them.
        measure: Runs the test.
    """
    mark_work(file.parent, key)  # a stage whose bundle is from the store has not run here
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        kept = json.loads(file.read_text())
        if kept["of"] == json.loads(json.dumps(mark)):
            return dict(kept["metrics"])
    metrics = store.read_metrics(key, mark) if store else None
    if metrics is None:
        metrics = measure()
        if store:
            store.keep_metrics(key, mark, metrics)
    write_whole(file, json.dumps({"of": mark, "metrics": metrics}))
    return metrics
