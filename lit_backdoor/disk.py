"""Writing to disk so that nothing is lost: names that become paths, what is ours, one folder in exchange for another.

What this package did not write is never removed, renamed or mixed with. A chain's folder has a mark; a bundle's folder
is known by its files.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import os
import re
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

__all__ = ["BUNDLE_FILES", "MARK", "check_bundle_folder", "check_claim", "check_name", "claim", "clean_name", "part_of",
           "place", "remove_bundle", "tidy"]  # fmt: skip

MARK = ".lit-backdoor"
BUNDLE_FILES = ("bundle.json", "weights.safetensors", "history.json", "made.json")
_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}")
_LONGEST = 200  # bytes; file systems take 255, and temporary names are longer than the final ones
_OWNER = r"(?P<host>.+)-(?P<pid>\d+)-[0-9a-f]{8}\.(?P<end>part|old)"
_DAY = 86400.0
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2


def check_name(what: str, name: object) -> str:
    """Return a name that becomes a folder as it is.

    Raises:
        ValueError: If it is not made of letters, digits, ``-`` and ``_`` only.
    """
    if not isinstance(name, str) or not _PLAIN.fullmatch(name):
        raise ValueError(
            f"Expected {what} of letters, digits, - and _ only, at most 100 of them, since it names a folder, got "
            f"{name!r}."
        )
    return name


def clean_name(text: str) -> str:
    """Make the name of one folder out of any text; long ones are cut and get a hash of the whole.

    Slashes and other signs that a shell or a file system reads in its own way become ``_``.
    """
    name = re.sub(r"[^\w.,=+-]+", "_", text)
    if not name.strip("."):
        name = f"_{name}"
    if len(name.encode()) > _LONGEST:
        cut = name.encode()[: _LONGEST - 9].decode(errors="ignore")
        name = f"{cut}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
    return name


def claim(folder: Path) -> None:
    """Make a folder ours, with a mark, if it is new or empty; one that has the mark stays as it is.

    Raises:
        ValueError: If it is a file, or holds what we did not write.
    """
    check_claim(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MARK).touch()


def check_claim(folder: Path) -> None:
    """Check that `claim` would take a folder.

    Raises:
        ValueError: If it is a file, holds what we did not write, or cannot be made.
    """
    if not folder.exists():
        _check_makeable(folder)
        return
    if not folder.is_dir():
        raise ValueError(f"Expected --out to be a folder, got the file {folder}.")
    if (folder / MARK).is_file():
        return
    if found := sorted(path.name for path in folder.iterdir()):
        raise ValueError(
            f"Expected --out to be a new or empty folder, or one of an earlier run, got {folder}, which holds "
            f"{_listed(found)}. Give another --out."
        )


def _check_makeable(folder: Path) -> None:
    """Check that a folder that is not there can be made: no link to nowhere, and below a folder of the user's."""
    if folder.is_symlink():
        raise ValueError(
            f"Expected --out to be a folder, got {folder}, a link to nowhere. Remove it, or give another --out."
        )
    above = next(parent for parent in folder.absolute().parents if parent.exists() or parent.is_symlink())
    if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
        what = "may not be written" if above.is_dir() else "is no folder"
        raise ValueError(f"Expected --out below a folder that may be written, but {above} {what}. Give another --out.")


def check_bundle_folder(folder: Path) -> None:
    """Check that a bundle may be written in the place of a folder.

    Raises:
        ValueError: If something is there that is neither an empty folder nor a bundle, or a bundle with other files in
            its folder.
    """
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        what = "a link" if folder.is_symlink() else "a file"
        raise ValueError(f"Expected a new folder or an older bundle at {folder}, got {what}. Give another --out.")
    if not folder.is_dir():
        _check_makeable(folder)
        return
    found = sorted(path.name for path in folder.iterdir())
    foreign = _foreign(folder, BUNDLE_FILES)
    if found and (foreign or not (folder / "bundle.json").is_file()):
        raise ValueError(
            f"Expected a new or empty folder or an older bundle at {folder}, which holds {_listed(foreign or found)}. "
            "Give another --out, or move that elsewhere."
        )


def part_of(path: Path, end: str = "part") -> Path:
    """Name a temporary file or folder beside ``path`` that says which process writes it."""
    return path.with_name(f".{path.name}.{os.uname().nodename}-{os.getpid()}-{secrets.token_hex(4)}.{end}")


def place(part: Path, target: Path) -> None:
    """Put a complete bundle's folder where an older one may be; at every moment one of the two is there.

    Where the system cannot exchange two folders in one step, a killed run can leave the older one under another name;
    `tidy` takes it back.
    """
    if not target.exists():
        part.rename(target)
    elif _exchange(part, target):
        remove_bundle(part)
    else:
        old = part_of(target, "old")
        target.rename(old)
        part.rename(target)
        remove_bundle(old)


def tidy(target: Path) -> None:
    """Remove what killed writers left beside ``target``, or take the older bundle back where they left no other.

    Only names that `part_of` gives are touched, of processes that run no more, and only files of bundles in them.
    """
    for path, end in list(_leftovers(target)):
        with contextlib.suppress(OSError):  # another process may be faster
            if end == "old" and not target.exists() and (path / "bundle.json").is_file():
                path.rename(target)
            elif path.is_dir():
                remove_bundle(path)
            else:
                path.unlink()


def remove_bundle(folder: Path) -> None:
    """Remove a bundle's files and its folder; a folder that holds anything else stays."""
    if folder.is_dir() and not folder.is_symlink() and not _foreign(folder, BUNDLE_FILES):
        shutil.rmtree(folder, ignore_errors=True)


def _leftovers(target: Path) -> Iterator[tuple[Path, str]]:
    pattern = re.compile(rf"\.{re.escape(target.name)}\.{_OWNER}")
    with contextlib.suppress(OSError):
        for path in target.parent.iterdir():
            match = pattern.fullmatch(path.name)
            if match and not path.is_symlink() and _is_dead(match["host"], int(match["pid"]), path):
                yield path, match["end"]


def _is_dead(host: str, pid: int, path: Path) -> bool:
    """Say whether the writer of a temporary file is gone; one on another machine is after a day without a change."""
    if host != os.uname().nodename:
        return time.time() - path.stat().st_mtime > _DAY
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass
    return False


def _foreign(folder: Path, files: tuple[str, ...]) -> list[str]:
    """Name what a folder holds beside the given files and their temporary forms."""
    temporary = [re.compile(rf"\.{re.escape(name)}\.{_OWNER}") for name in files]
    return sorted(
        path.name
        for path in folder.iterdir()
        if not path.is_file()
        or path.is_symlink()
        or not (path.name in files or any(pattern.fullmatch(path.name) for pattern in temporary))
    )


def _listed(names: list[str]) -> str:
    return ", ".join(map(repr, names[:3])) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _exchange(one: Path, two: Path) -> bool:
    """Exchange two paths in one step (Linux ``renameat2``); says whether the system could."""
    call: Callable[..., int] | None = getattr(ctypes.CDLL(None), "renameat2", None)
    return call is not None and not call(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(two), _RENAME_EXCHANGE)
