"""What a chain keeps in its folder: bundles, checkpoints, logs; nothing half written."""

from __future__ import annotations

import contextlib
import csv
import os
import shutil
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lit_backdoor.bundle import Bundle

__all__ = ["copy_whole", "finished", "newest_checkpoint", "read_history", "write_whole"]


def finished(folder: Path, key: str) -> Bundle | None:
    """Open the bundle in a folder if it is whole and was made under this key; None where it has to be made anew."""
    from lit_backdoor.bundle import open_bundle

    try:
        bundle = open_bundle(folder)
    except (OSError, ValueError):  # none, one that cannot be read, or a damaged one
        return None
    return bundle if bundle.info["key"] == key else None


def newest_checkpoint(work: Path) -> Path | None:
    """Find the newest checkpoint in a stage's working folder that was written to its end."""
    found = sorted((work / "checkpoints").glob("*.ckpt"), key=lambda path: path.stat().st_mtime_ns)
    return next((path for path in reversed(found) if zipfile.is_zipfile(path)), None)


def read_history(work: Path) -> list[dict[str, float]]:
    """Read each epoch's numbers from every log in a stage's working folder; a resumed run has several logs."""
    epochs: dict[int, dict[str, float]] = {}
    logs = sorted(work.glob("logs/version_*/metrics.csv"), key=lambda path: int(path.parent.name.split("_")[1]))
    for file in logs:
        # a run that was killed may have left a line half written
        with file.open() as text, contextlib.suppress(ValueError, csv.Error):
            for row in csv.DictReader(text):
                epoch = int(row.get("epoch") or 0)
                numbers = {k: float(v) for k, v in row.items() if v and k not in ("epoch", "step")}
                epochs.setdefault(epoch, {"epoch": epoch}).update(numbers)
    return [epochs[epoch] for epoch in sorted(epochs)]


def write_whole(path: Path, text: str) -> None:
    """Write a file by rename, so that it is there whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = _part_of(path)
    part.write_text(text)
    part.rename(path)


def copy_whole(source: Path, target: Path) -> None:
    """Copy a folder, which is there whole or not at all; an older one is replaced."""
    part = _part_of(target)
    shutil.rmtree(part, ignore_errors=True)
    try:
        shutil.copytree(source, part)
        shutil.rmtree(target, ignore_errors=True)
        part.rename(target)
    finally:
        shutil.rmtree(part, ignore_errors=True)  # gone already where all went well; a full disk must not keep it


def _part_of(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.part")
