"""Lists of image files: found in folders, kept as one table."""

from __future__ import annotations

import hashlib
import os
from array import array
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

__all__ = ["TEST_PARTS", "Listing", "class_folders", "image_files", "subfolders"]

TEST_PARTS = ("test", "val", "valid", "validation")  # usual names of a folder beside one called train

_SUFFIXES = frozenset({"jpg", "jpeg", "png", "bmp", "ppm", "pgm", "tif", "tiff", "webp", "gif"})


class Listing:
    """Paths and labels of many files; a row takes 16 bytes and the length of the file's name without its folder."""

    def __init__(self) -> None:
        self._folders: list[str] = []
        self._number: dict[str, int] = {}
        self._names = bytearray()
        self._ends, self._folder, self._label = array("I"), array("I"), array("q")

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, row: int) -> str:
        """Give the path of a row."""
        start = self._ends[row - 1] if row else 0
        name = os.fsdecode(bytes(self._names[start : self._ends[row]]))
        return f"{self._folders[self._folder[row]]}{os.sep}{name}"

    @property
    def labels(self) -> Tensor:
        """The labels, int64 ``[N]``; shares the table's memory."""
        return torch.frombuffer(self._label, dtype=torch.int64) if self._label else torch.empty(0, dtype=torch.int64)

    def add(self, folder: str, name: str, label: int) -> None:
        """Add a file."""
        if folder not in self._number:
            self._number[folder] = len(self._folders)
            self._folders.append(folder)
        self._names += os.fsencode(name)
        self._ends.append(len(self._names))
        self._folder.append(self._number[folder])
        self._label.append(label)

    def stamp(self) -> str:
        """Hash names (with the last folder's), labels, sizes and times of change of the files."""
        total = hashlib.sha256()
        for row, label in enumerate(self._label):
            path = Path(self[row])
            state = path.stat()
            total.update(os.fsencode(f"{path.parent.name}/{path.name}/{label}/{state.st_size}/{state.st_mtime_ns}\0"))
        return total.hexdigest()[:32]


def image_files(folder: str | Path) -> list[tuple[str, str]]:
    """List the images at any depth below a folder, sorted, as folders and names.

    Hidden files and folders are no images. Linked folders are followed.

    Raises:
        ValueError: If a link leads back to a folder that holds it, or an image is a link to nowhere.
    """
    if not Path(folder).is_dir():
        return []
    return sorted(_walk((str(folder),)), key=lambda file: "\0".join(file).replace(os.sep, "\0"))  # folder by folder


def subfolders(folder: Path) -> list[str]:
    """Name the folders in a folder, sorted, without hidden ones.

    Raises:
        ValueError: If it is a file.
    """
    if not folder.is_dir():
        raise ValueError(f"Expected a folder of class folders at '{folder}', got a file.")
    return sorted(entry.name for entry in os.scandir(folder) if not entry.name.startswith(".") and entry.is_dir())


def class_folders(folder: Path) -> tuple[str, ...]:
    """Name the classes that folders stand for, sorted.

    Raises:
        ValueError: If there is none, or one has no images.
    """
    names = subfolders(folder)
    if not names:
        raise ValueError(f"'{folder}' has no folders. Expected one folder per class in it.")
    for name in names:
        if next(_walk((str(folder / name),)), None) is None:
            raise ValueError(f"'{folder / name}' has no images, so nothing says what the class is. Fill or remove it.")
    return tuple(names)


def _walk(above: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """Go through the last of nested folders."""
    for entry in os.scandir(above[-1]):
        if entry.name.startswith("."):
            continue
        stem, _, kind = entry.name.rpartition(".")
        image = bool(stem) and kind.lower() in _SUFFIXES
        if image and entry.is_file():
            yield above[-1], entry.name
        elif entry.is_dir():
            if entry.is_symlink() and any(Path(entry.path).samefile(folder) for folder in above):
                raise ValueError(f"'{entry.path}' is a link to a folder that holds it. Remove the link.")
            yield from _walk((*above, entry.path))
        elif image and entry.is_symlink():
            raise ValueError(f"'{entry.path}' is a link to nowhere. Restore the image, or remove the link.")
