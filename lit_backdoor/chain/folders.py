"""What a chain keeps in its folder: bundles, checkpoints, logs; nothing half written."""

from __future__ import annotations

import contextlib
import csv
import shutil
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

from lit_backdoor.disk import check_bundle_folder, part_of, place, remove_bundle, tidy

if TYPE_CHECKING:
    from lit_backdoor.bundle import Bundle

__all__ = [
    "check_work",
    "copy_whole",
    "finished",
    "keep_newest_checkpoint",
    "mark_work",
    "newest_checkpoint",
    "read_history",
    "write_whole",
]


def finished(folder: Path, key: str) -> Bundle | None:
    """Open the bundle in a folder if it is whole and was made under this key; None where it has to be made anew."""
    from lit_backdoor.bundle import open_bundle

    tidy(folder)
    try:
        bundle = open_bundle(folder)
    except (OSError, ValueError):  # none, one that cannot be read, or a damaged one
        return None
    return bundle if bundle.info["key"] == key else None


def newest_checkpoint(work: Path) -> Path | None:
    """Find the newest checkpoint in a stage's working folder that was written to its end."""
    found = sorted((work / "checkpoints").glob("*.ckpt"), key=lambda path: path.stat().st_mtime_ns)
    return next((path for path in reversed(found) if zipfile.is_zipfile(path)), None)


def keep_newest_checkpoint(work: Path) -> None:
    """Remove older checkpoints of a stage, those that a killed run left half written, and Slurm's.

    A resumed run does not: it takes no path out of a checkpoint. Slurm's are from the middle of an epoch.
    """
    newest = newest_checkpoint(work)
    for path in (*(work / "checkpoints").glob("*.ckpt"), *work.glob("hpc_ckpt_*.ckpt")):
        if path != newest:
            path.unlink()


def mark_work(work: Path, key: str) -> None:
    """Mark a stage's working folder with its key, by which a later start knows the folder; an older mark is kept."""
    if not (work / "key").is_file():
        write_whole(work / "key", key)


def check_work(work: Path) -> None:
    """Check that a stage's working folder is one of an earlier run, or new.

    Raises:
        ValueError: If it is anything else.
    """
    linked = next((path for path in (work.parent, work) if path.is_symlink()), None)
    if linked is None:
        tidy(work / "key")
    if linked is not None or (
        work.exists() and not (work / "key").is_file() and (not work.is_dir() or any(work.iterdir()))
    ):
        raise ValueError(
            f"Expected {linked or work} to be the working folder of an earlier run, got something else. Move it "
            "elsewhere, or give another --out."
        )


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
    tidy(path)
    part = part_of(path)
    part.write_text(text, encoding="utf-8")
    part.rename(path)


def copy_whole(source: Path, target: Path) -> None:
    """Copy a bundle's folder, which is there whole or not at all; an older one is replaced."""
    check_bundle_folder(target)
    part = part_of(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        shutil.copytree(source, part)
        place(part, target)
    finally:
        remove_bundle(part)  # gone already where all went well; a full disk must not keep it
