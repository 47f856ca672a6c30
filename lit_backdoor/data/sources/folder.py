"""Images in folders: one folder per class, or any folder of unlabeled images."""

from __future__ import annotations

from abc import abstractmethod
from functools import cached_property
from pathlib import Path

import PIL
import torch
from PIL import Image
from torch import Tensor

from lit_backdoor.data.sources.base import Part, Rows, Source, TensorRows, check_labels, digest, size_pair
from lit_backdoor.data.sources.files import cached_pixels, decode, decode_all, find

__all__ = ["FileRows", "FileSource", "ImageFolderSource", "UnlabeledFolder", "image_files"]

_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".ppm", ".pgm", ".tif", ".tiff", ".webp", ".gif"})


class FileRows(Rows):
    """Rows that are decoded from their files whenever they are asked for.

    Args:
        paths: One file per row.
        labels: int64 ``[N]``.
        image_size: Height and width that every image must have, or is resized to.
        resize: Whether to resize, bilinear with antialiasing.
        columns: Further columns, int64 or bool ``[N]``.
    """

    in_memory = False

    def __init__(
        self,
        paths: list[Path],
        labels: Tensor,
        image_size: tuple[int, int],
        resize: bool,
        columns: dict[str, Tensor] | None = None,
    ) -> None:
        self.paths, self.labels = paths, labels
        self.columns = columns or {}
        self._image_size, self._resize = image_size, resize

    def images(self, index: Tensor) -> Tensor:
        """Decode rows.

        Raises:
            ValueError: If a file is broken or its image of another size; names the file.
        """
        images = torch.empty((len(index), 3, *self._image_size), dtype=torch.uint8)
        for row, path in enumerate(self.paths[number] for number in index.tolist()):
            image = decode(path, f"'{path}'", self._image_size if self._resize else None)
            if image.shape[:2] != self._image_size:
                raise ValueError(
                    f"'{path}': the image is {image.shape[0]}x{image.shape[1]} (height x width), the first one "
                    f"{self._image_size[0]}x{self._image_size[1]}. Give a `size` to resize all images to."
                )
            images[row] = torch.tensor(image).permute(2, 0, 1)
        return images


class FileSource(Source):
    """A source whose rows are image files.

    Args:
        size: Side of the square, or height and width, to resize to (the aspect ratio is not kept); None if all
            images have one size.
        in_memory: Whether to decode all images once and keep them; otherwise they are decoded when asked for,
            which belongs into loader workers.
    """

    def __init__(self, size: int | tuple[int, int] | None, in_memory: bool) -> None:
        self._size = None if size is None else size_pair(size)
        self._in_memory = in_memory

    @abstractmethod
    def _list(self, part: Part) -> list[tuple[Path, int]]:
        """List files and labels of a part, in a fixed order; at least one."""

    @cached_property
    def image_size(self) -> tuple[int, int]:
        """Height and width of every image."""
        if self._size is not None:
            return self._size
        path = self._files("train")[0][0]
        try:
            with Image.open(path) as image:
                return image.height, image.width
        except Exception as error:  # as in `decode`
            raise ValueError(f"'{path}': not a readable image ({error}). Replace or remove it.") from error

    def fingerprint(self) -> str:
        """Hash names, labels, sizes and times of change of files, not content, which may be large."""
        return digest("files", self._stamp("train"), self._stamp("test"), self.class_names, self._size)

    def _files(self, part: Part) -> list[tuple[Path, int]]:
        kept: dict[Part, list[tuple[Path, int]]] = self.__dict__.setdefault("_listed", {})
        if part not in kept:
            kept[part] = self._list(part)
        return kept[part]

    def _stamp(self, part: Part) -> str:
        pieces = []
        for path, label in self._files(part):
            state = path.stat()
            pieces.append((path.parent.name, path.name, label, state.st_size, state.st_mtime_ns))
        return digest(pieces)

    def _labels(self, part: Part) -> Tensor:
        labels = torch.tensor([label for _, label in self._files(part)])
        return check_labels(labels, self.num_classes, f"{part} part")

    def _columns(self, part: Part) -> dict[str, Tensor]:
        return {}

    def _load(self, part: Part) -> Rows:
        paths = [path for path, _ in self._files(part)]
        labels, columns = self._labels(part), self._columns(part)
        if not self._in_memory:
            return FileRows(paths, labels, self.image_size, self._size is not None, columns)

        def make() -> Tensor:
            return decode_all(len(paths), lambda row: (paths[row], f"'{paths[row]}'"), self._size)

        key = digest(str(paths[0].parent), self._stamp(part), self._size, PIL.__version__)
        return TensorRows(cached_pixels(key, len(paths), make), labels, columns)


class ImageFolderSource(FileSource):
    """Folders of images, one folder per class; classes are in the order of the sorted folder names.

    Args:
        train: Folder of the training part, as it is or below ``$LIT_BACKDOOR_DATA``.
        test: Folder of the test part, whose classes must be among those of the training part.
        size: Side of the square, or height and width, to resize to (the aspect ratio is not kept); None if all
            images have one size.
        in_memory: Whether to decode all images once and keep them.

    Raises:
        FileNotFoundError: When used, if a folder is missing.
        ValueError: When used, if a folder has no images, a class is unknown, or an image is broken.
    """

    def __init__(
        self, train: str, test: str, size: int | tuple[int, int] | None = None, in_memory: bool = False
    ) -> None:
        super().__init__(size, in_memory)
        self._folders: dict[Part, str] = {"train": train, "test": test}

    @cached_property
    def class_names(self) -> tuple[str, ...]:
        """Names of the training part's folders, sorted."""
        return class_folders(self._folder("train"))

    def _folder(self, part: Part) -> Path:
        return find(self._folders[part], f"Image folder '{self._folders[part]}'")

    def _list(self, part: Part) -> list[tuple[Path, int]]:
        labels = {name: number for number, name in enumerate(self.class_names)}
        folder = self._folder(part)
        present = subfolders(folder)
        strange = [name for name in present if name not in labels]
        if strange:
            raise ValueError(f"'{folder}' has the class '{strange[0]}', which the training part has not.")
        files = [(path, labels[name]) for name in present for path in image_files(folder / name)]
        if not files:
            raise ValueError(f"'{folder}' has no images in its class folders.")
        return files


class UnlabeledFolder(FileSource):
    """Any folder of images, without labels, as the clean data of a defender who has none of the task's own.

    All labels are -1 until somebody sets ``train().labels``, such as to what the suspect itself says. There are
    neither class names nor a test part.

    Args:
        root: The folder, with images at any depth; as it is or below ``$LIT_BACKDOOR_DATA``.
        size: Side of the square, or height and width, to resize to; None if all images have one size.
        in_memory: Whether to decode all images once and keep them.

    Raises:
        FileNotFoundError: When used, if the folder is missing.
        ValueError: When used, if it has no images or an image is broken, or if the test part is asked for.
    """

    def __init__(self, root: str, size: int | tuple[int, int] | None = None, in_memory: bool = True) -> None:
        super().__init__(size, in_memory)
        self._root = root

    @property
    def class_names(self) -> tuple[str, ...]:
        """No names."""
        return ()

    def fingerprint(self) -> str:
        """Hash names, sizes and times of change of files."""
        return digest("unlabeled", self._stamp("train"), self._size)

    def _labels(self, part: Part) -> Tensor:
        return torch.tensor([label for _, label in self._files(part)])

    def _list(self, part: Part) -> list[tuple[Path, int]]:
        if part == "test":
            raise ValueError(f"'{self._root}' holds unlabeled images, which make no test part. Use train().")
        folder = find(self._root, f"Image folder '{self._root}'")
        files = [(path, -1) for path in image_files(folder)]
        if not files:
            raise ValueError(f"'{folder}' has no images.")
        return files


def class_folders(folder: Path) -> tuple[str, ...]:
    """Name the classes that folders stand for, sorted; hidden folders stand for none.

    Raises:
        ValueError: If there is none, or one has no images.
    """
    names = subfolders(folder)
    if not names:
        raise ValueError(f"'{folder}' has no folders. Expected one folder per class in it.")
    empty = [name for name in names if not image_files(folder / name)]
    if empty:
        raise ValueError(f"'{folder / empty[0]}' has no images, so nothing says what the class is. Fill or remove it.")
    return tuple(names)


def subfolders(folder: Path) -> list[str]:
    """Name the folders in a folder, sorted, but hidden ones.

    Raises:
        ValueError: If it is a file.
    """
    if not folder.is_dir():
        raise ValueError(f"Expected a folder of class folders at '{folder}', got a file.")
    return sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def image_files(folder: Path) -> list[Path]:
    """List the image files at any depth below a folder, sorted."""
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in _SUFFIXES and path.is_file())
