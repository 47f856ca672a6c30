"""Writing of a stage's bundle, when its run is complete."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from lit_backdoor.bundle import save_bundle

if TYPE_CHECKING:
    from lit_backdoor.stages.base import Stage

__all__ = ["write_bundle"]


def write_bundle(stage: Stage, path: str | Path, key: str | None = None) -> None:
    """Write a stage's outcome as a bundle; all processes call it, the first one writes.

    Args:
        stage: The stage.
        path: Folder of the bundle.
        key: Hash of the settings, kept in the bundle.

    Raises:
        TypeError: If the stage exports nothing.
    """
    if stage.kind is None:
        raise TypeError(f"{type(stage).__name__} exports nothing.")
    outcome, data, trainer = stage.outcome(), stage.attached_data, stage.attached_trainer
    if stage.global_rank == 0:
        save_bundle(
            path,
            kind=stage.kind,
            module=outcome.module,
            tensors=outcome.tensors,
            numbers=outcome.numbers,
            attack=getattr(data, "attack", None),
            inputs={
                name: {"hash": bundle.hash, "path": Path(os.path.relpath(bundle.path, path)).as_posix()}
                for name, bundle in stage.sources.items()
            },
            key=key,
            meta={
                "stage": f"{type(stage).__module__}.{type(stage).__qualname__}",
                "class_names": list(getattr(data, "class_names", ())),
            },
        )
    if trainer is not None:
        trainer.strategy.barrier()
