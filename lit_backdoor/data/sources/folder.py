"""Images in folders: one folder per class, or any folder of unlabeled images."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path

import PIL
import torch
from torch import Tensor
from torch.utils.data import get_worker_info

from lit_backdoor.data.sources.base import Part, Rows, Source, TensorRows, check_labels, digest, distinct, size_pair
from lit_backdoor.data.sources.files import cached_pixels, decode_all, find
from lit_backdoor.data.sources.listing import Listing, class_folders, image_files, subfolders
from lit_backdoor.pictures import picture_size, planes

__all__ = ["FileRows", "FileSource", "ImageFolderSource", "UnlabeledFolder"]

_THREADED = 8  # images; fewer are decoded one after another


class FileRows(Rows):
    """Rows that are decoded from their files whenever they are asked for, to the size that is stored.

    Args:
        listing: Files and labels.
        image_size: Height and width that every image must have, or is resized to.
        resize: Whether to resize, bilinear with antialiasing.
        crop: Whether to cut the largest centered part of the size's shape before.
        columns: Further columns, int64 or bool ``[N]``.
    """

    in_memory = False

    def __init__(
        self,
        listing: Listing,
        image_size: tuple[int, int],
        resize: bool,
        crop: bool = False,
        columns: dict[str, Tensor] | None = None,
    ) -> None:
        self.listing, self.labels = listing, listing.labels
        self.columns = columns or {}
        self._image_size, self._resize, self._crop = image_size, resize, crop

    def images(self, index: Tensor) -> Tensor:
        """Decode rows: one by one in a loader's worker, in threads elsewhere.

        Raises:
            ValueError: If a file is broken or its image of another size; names the file.
        """
        images = torch.empty((len(index), 3, *self._image_size), dtype=torch.uint8)
        pixels, size = images.numpy(), self._image_size if self._resize else None

        def fill(place: int, row: int) -> None:
            path = self.listing[row]
            image = planes(path, f"'{path}'", size, self._crop)
            if image.shape[1:] != self._image_size:
                raise ValueError(
                    f"'{path}': the image is {image.shape[1]}x{image.shape[2]} (height x width), the first one "
                    f"{self._image_size[0]}x{self._image_size[1]}. Give a `size` to resize all images to."
                )
            pixels[place] = image

        if len(index) < _THREADED or get_worker_info() is not None:
            for place, row in enumerate(index.tolist()):
                fill(place, row)
        else:
            with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
                list(pool.map(fill, range(len(index)), index.tolist()))
        return images


class FileSource(Source):
    """A source whose rows are image files.

    Args:
        size: Side of the square, or height and width, to resize to; None if all images have one size.
        in_memory: Whether to decode all images once and keep them; otherwise they are decoded when asked for,
            which belongs into loader workers.
        crop: Whether to cut the largest centered part of the size's shape before resizing; otherwise the aspect ratio
            changes.

    Raises:
        ValueError: If the size is not positive, or missing where images are to be cropped.
    """

    def __init__(self, size: int | tuple[int, int] | None, in_memory: bool, crop: bool = False) -> None:
        self._size = None if size is None else size_pair(size)
        self._in_memory, self._crop = in_memory, crop
        if crop and size is None:
            raise ValueError("Expected a size to crop images to, got none. Set size, or crop to false.")

    @abstractmethod
    def _list(self, part: Part) -> Listing:
        """List files and labels of a part, in a fixed order; at least one."""

    @cached_property
    def image_size(self) -> tuple[int, int]:
        """Height and width of every image."""
        if self._size is not None:
            return self._size
        path = self._files("train")[0]
        return picture_size(path, f"'{path}'")

    def fingerprint(self) -> str:
        """Hash names, labels, sizes and times of change of files, not content, which may be large."""
        return digest("files", self._stamp("train"), self._stamp("test"), self.class_names, self._shape)

    @property
    def _shape(self) -> object:
        return (self._size, "crop") if self._crop else self._size

    def _files(self, part: Part) -> Listing:
        kept: dict[Part, Listing] = self.__dict__.setdefault("_listed", {})
        if part not in kept:
            kept[part] = self._list(part)
        return kept[part]

    def _stamp(self, part: Part) -> str:
        return self._files(part).stamp()

    def _check_labels(self, part: Part) -> None:
        check_labels(self._files(part).labels, self.num_classes, f"{part} part")

    def _columns(self, part: Part) -> dict[str, Tensor]:
        return {}

    def _load(self, part: Part) -> Rows:
        files, columns = self._files(part), self._columns(part)
        self._check_labels(part)
        if not self._in_memory:
            return FileRows(files, self.image_size, self._size is not None, self._crop, columns)

        def make() -> Tensor:
            return decode_all(len(files), lambda row: (files[row], f"'{files[row]}'"), self._size, self._crop)

        key = digest(str(Path(files[0]).parent), self._stamp(part), self._shape, PIL.__version__)
        return TensorRows(cached_pixels(key, len(files), make), files.labels, columns)


class ImageFolderSource(FileSource):
    """Folders of images, one folder per class, with images at any depth.

    Hidden files and folders are no images or classes; linked folders are followed.

    Args:
        train: Folder of the training part, as it is or below ``$LIT_BACKDOOR_DATA``.
        test: Folder of the test part, whose classes must be among those of the training part.
        size: Side of the square, or height and width, to resize to; None if all images have one size.
        in_memory: Whether to decode all images once and keep them.
        crop: Whether to cut the largest centered part of the size's shape before resizing; otherwise the aspect ratio
            changes.
        classes: Names of folders in the order of the labels, such as a suspect's; None takes the training part's
            folders, sorted. A class that is named may have no folder.

    Raises:
        FileNotFoundError: When used, if a folder is missing.
        ValueError: When used, if a folder has no images, a class is unknown, or an image is broken.
    """

    def __init__(
        self,
        train: str,
        test: str,
        size: int | tuple[int, int] | None = None,
        in_memory: bool = False,
        crop: bool = False,
        classes: Sequence[str] | None = None,
    ) -> None:
        super().__init__(size, in_memory, crop)
        self._folders: dict[Part, str] = {"train": train, "test": test}
        self._classes = None if classes is None else distinct(classes)

    @cached_property
    def class_names(self) -> tuple[str, ...]:
        """Names of the training part's folders, sorted, or the classes that were given."""
        return self._classes or class_folders(self._folder("train"))

    def _folder(self, part: Part) -> Path:
        return find(self._folders[part], f"Image folder '{self._folders[part]}'")

    def _list(self, part: Part) -> Listing:
        labels = {name: number for number, name in enumerate(self.class_names)}
        folder, files = self._folder(part), Listing()
        for name in subfolders(folder):
            if name not in labels:
                known = "`classes` do not name" if self._classes else "the training part has not"
                raise ValueError(f"'{folder}' has the class '{name}', which {known}.")
            for place, file in image_files(folder / name):
                files.add(place, file, labels[name])
        if not len(files):
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
        return digest("unlabeled", self._stamp("train"), self._shape)

    def _check_labels(self, part: Part) -> None:
        """Accept -1."""

    def _list(self, part: Part) -> Listing:
        if part == "test":
            raise ValueError(f"'{self._root}' holds unlabeled images, which make no test part. Use train().")
        folder = find(self._root, f"Image folder '{self._root}'")
        files = Listing()
        for place, name in image_files(folder):
            files.add(place, name, -1)
        if not len(files):
            raise ValueError(f"'{folder}' has no images.")
        return files
