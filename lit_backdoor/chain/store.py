"""The store: bundles by the keys of the stages that made them, in a folder that machines may share.

::

    bundles/KEY/        the bundle, its history.json and made.json (what making it cost)
    metrics/KEY/        numbers of tests of that bundle, by what was tested
    stages/IDENTITY     the key that a stage of that identity got when it ran
    seconds/KIN         how long a stage took that differs in seed, attack and inputs only
    locks/KEY           held while a stage is made; the system frees it when its holder dies

Everything is written by rename. Nothing here needs torch but the opening of a bundle.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lit_backdoor.chain.folders import copy_whole, finished, write_whole
from lit_backdoor.disk import part_of, remove_bundle
from lit_backdoor.presets import cache_folder

if TYPE_CHECKING:
    from lit_backdoor.bundle import Bundle

__all__ = ["Store", "read_made"]

FORMAT = 1


class Store:
    """What stages left, found again by their keys.

    Args:
        folder: Where it lies; default the cache folder.

    Raises:
        ValueError: If it is a file, or a newer version of the package wrote it.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or cache_folder()
        if self.folder.exists() and not self.folder.is_dir():
            raise ValueError(
                f"Expected a folder for the store, got the file {self.folder}. Set LIT_BACKDOOR_CACHE to a folder."
            )
        stated = _read(self.folder / "store.json").get("format", FORMAT)
        if not isinstance(stated, int) or stated > FORMAT:
            raise ValueError(
                f"Expected a store of format {FORMAT} at {self.folder}, got {stated!r}, which a newer version wrote. "
                "Install that version, or set LIT_BACKDOOR_CACHE to another folder."
            )

    def create(self) -> None:
        """Make the folder.

        Raises:
            ValueError: If it cannot be written.
        """
        try:
            write_whole(self.folder / "store.json", json.dumps({"format": FORMAT}) + "\n")
        except OSError as error:
            raise ValueError(
                f"Expected a store that can be written at {self.folder}, got: {error}. Set LIT_BACKDOOR_CACHE to a "
                "folder of yours."
            ) from error

    def bundle(self, key: str) -> Path:
        """Say where the bundle of a key lies, or would."""
        return self.folder / "bundles" / key

    def has(self, key: str) -> bool:
        """Say whether there is a bundle of a key; whether it is whole shows when it is opened."""
        return (self.bundle(key) / "bundle.json").is_file()

    def take(self, key: str, target: Path, inputs: Mapping[str, Path]) -> Bundle | None:
        """Copy the bundle of a key into a folder.

        Args:
            key: The stage's key.
            target: The folder.
            inputs: Where the bundles lie that it was made from, by argument name.

        Returns:
            The copy; None if there is no whole bundle of the key.
        """
        stored = self.bundle(key)
        if finished(stored, key) is None:
            return None
        with contextlib.suppress(OSError):
            os.utime(stored / "bundle.json")  # when it was last used
        with contextlib.suppress(FileNotFoundError):  # the store is being pruned
            copy_whole(stored, target)
            _point_to(inputs, target)
        return finished(target, key)

    def keep(self, bundle: Bundle, key: str) -> None:
        """Keep a copy of a bundle under its key."""
        stored = self.bundle(key)
        if finished(stored, key) is None:  # another chain may have been faster, and yet another be reading
            with contextlib.suppress(OSError, ValueError):  # a store that cannot be written costs time, not results
                if not (self.folder / "store.json").is_file():
                    self.create()
                copy_whole(bundle.path, stored)

    def remove(self, key: str) -> bool:
        """Remove the bundle of a key with the numbers of its tests; says whether it could: not while a run makes it."""
        try:
            with self.lock(key, _refuse):
                part = part_of(self.bundle(key))
                self.bundle(key).rename(part)
        except OSError:
            return False
        remove_bundle(part)
        shutil.rmtree(self.folder / "metrics" / key, ignore_errors=True)
        return True

    @contextlib.contextmanager
    def lock(self, key: str, wait: Callable[[], None]) -> Iterator[None]:
        """Hold the lock on a key, so that of several chains that need a stage one makes it.

        A record lock: processes that the holder starts do not share it, and it ends with the holder.

        Args:
            key: The stage's key.
            wait: Called before waiting for another holder.
        """
        file = self.folder / "locks" / key
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            lock = os.open(file, os.O_CREAT | os.O_RDWR, 0o666)
        except OSError:  # a store that cannot be written: at worst a stage is made twice
            yield
            return
        try:
            try:
                fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except (BlockingIOError, PermissionError):
                wait()
                fcntl.lockf(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)

    # Numbers of tests.

    def read_metrics(self, key: str, mark: Mapping[str, Any]) -> dict[str, Any] | None:
        """Give the numbers of a test that was run before; None if there are none."""
        stored = _read(self._metrics(key, mark))
        return dict(stored["metrics"]) if isinstance(stored.get("metrics"), dict) else None

    def keep_metrics(self, key: str, mark: Mapping[str, Any], metrics: Mapping[str, Any]) -> None:
        """Keep the numbers of a test under what was tested: bundle, data, code."""
        with contextlib.suppress(OSError):
            write_whole(self._metrics(key, mark), json.dumps({"of": mark, "metrics": metrics}))

    def _metrics(self, key: str, mark: Mapping[str, Any]) -> Path:
        text = json.dumps(mark, sort_keys=True, default=str)
        return self.folder / "metrics" / key / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.json"

    # What stages that did not run yet can be known by.

    def note(self, identity: str, key: str) -> None:
        """Note the key that a stage of this identity got."""
        with contextlib.suppress(OSError):
            if self.key_of(identity) != key:
                write_whole(self.folder / "stages" / identity, key)

    def key_of(self, identity: str) -> str | None:
        """Give the key that a stage of this identity got when it last ran; None if it never did."""
        try:
            return (self.folder / "stages" / identity).read_text()
        except OSError:
            return None

    def note_seconds(self, kin: str, seconds: float) -> None:
        """Remember how long a stage of this kin took; see `lit_backdoor.chain.keys.stage_kin`."""
        with contextlib.suppress(OSError):
            write_whole(self.folder / "seconds" / kin, f"{seconds}")

    def expected_seconds(self, kin: str) -> float | None:
        """Give the seconds that a stage of this kin took last; None if none ran here."""
        try:
            return float((self.folder / "seconds" / kin).read_text())
        except (OSError, ValueError):
            return None

    def made(self, key: str) -> dict[str, Any]:
        """Say what making the bundle of a key cost; empty if nobody wrote it down."""
        return read_made(self.bundle(key))


def read_made(folder: Path) -> dict[str, Any]:
    """Read what making the bundle in a folder cost; empty if nobody wrote it down."""
    return _read(folder / "made.json")


def _refuse() -> None:
    raise BlockingIOError("a run holds the lock")


def _point_to(inputs: Mapping[str, Path], target: Path) -> None:
    """Say in a copied bundle where its inputs lie now; no hash counts that."""
    file = target / "bundle.json"
    info = json.loads(file.read_text())
    for name, path in inputs.items():
        if name in info["inputs"]:
            info["inputs"][name]["path"] = Path(os.path.relpath(path, target)).as_posix()
    write_whole(file, json.dumps(info, indent=1, allow_nan=False) + "\n")


def _read(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
