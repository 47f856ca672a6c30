"""Images in parquet files, in the layout of the common model hubs."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import torch
from numpy.typing import NDArray
from torch import Tensor

from lit_backdoor.data.sources.base import (
    Part,
    Rows,
    Source,
    TensorRows,
    check_labels,
    digest,
    distinct,
    numbers,
    size_pair,
)
from lit_backdoor.data.sources.files import cached_pixels, decode_all
from lit_backdoor.data.sources.parquet_files import find_shards, metadata_names, open_parquet, read_column, read_columns
from lit_backdoor.pictures import picture_size

__all__ = ["ParquetSource"]


class ParquetSource(Source):
    """Parquet files with encoded images, decoded once into memory (and kept in the cache folder).

    ``image`` holds encoded bytes, or a struct with ``bytes``; ``label`` holds whole numbers or names. Further
    integer and bool columns without gaps, in every file of a part, become `Rows.columns`; others are left out.

    Args:
        train: The training part: a file, a folder, a pattern such as ``data/train-*.parquet``, or a list of these, as
            they are or below ``$LIT_BACKDOOR_DATA``. Of a folder that holds several parts, as model hubs have it, only
            files are taken that begin with the part's name.
        test: The test part likewise; in a folder without one the validation part.
        class_names: Names in the order of the labels. None takes them from the file's metadata (``class_names``
            with commas between, or the hub's features), or the sorted names in the label column, or else numbers up to
            the largest training label.
        size: Side of the square, or height and width, to resize to; None if all images have one size.
        image_column: Name of the image column.
        label_column: Name of the label column.
        crop: Whether to cut the largest centered part of the size's shape before resizing; otherwise the aspect ratio
            changes.

    Raises:
        FileNotFoundError: When used, if a file is missing.
        ValueError: When used, if a file, a column, an image or a label is wrong; names file and row.
    """

    def __init__(
        self,
        train: str | list[str],
        test: str | list[str],
        class_names: list[str] | None = None,
        size: int | tuple[int, int] | None = None,
        image_column: str = "image",
        label_column: str = "label",
        crop: bool = False,
    ) -> None:
        self._given: dict[Part, str | list[str]] = {"train": train, "test": test}
        self._given_names = None if class_names is None else distinct(class_names)
        self._size = None if size is None else size_pair(size)
        self._image_column, self._label_column = image_column, label_column
        self._crop = crop and size is not None

    @cached_property
    def class_names(self) -> tuple[str, ...]:
        """Names in the order of the labels."""
        if self._given_names is not None:
            return self._given_names
        named = metadata_names(open_parquet(self._shards("train")[0]).schema_arrow, self._label_column)
        if named is not None:
            return distinct(named)
        labels = np.concatenate([self._read(path, self._label_column) for path in self._shards("train")])
        return distinct(sorted(set(labels))) if labels.dtype == object else numbers(int(labels.max()) + 1)

    @cached_property
    def image_size(self) -> tuple[int, int]:
        """Height and width of every image."""
        if self._size is not None:
            return self._size
        path = self._shards("train")[0]
        first = read_columns(path, [self._image_column], limit=1)
        return picture_size(_encoded(first.column(0), path)(0), f"'{path}', row 0")

    def fingerprint(self) -> str:
        """Hash the files' content, the columns' names, the size and the class names."""
        columns = self._image_column, self._label_column
        files = self._hash("train"), self._hash("test")
        return digest("parquet", *files, *columns, self._shape, self.class_names)

    @property
    def _shape(self) -> object:
        return (self._size, "crop") if self._crop else self._size

    def _shards(self, part: Part) -> list[Path]:
        kept: dict[Part, list[Path]] = self.__dict__.setdefault("_found", {})
        if part not in kept:
            kept[part] = find_shards(self._given[part], part)
        return kept[part]

    def _hash(self, part: Part) -> str:
        kept: dict[Part, str] = self.__dict__.setdefault("_hashes", {})
        if part not in kept:
            hashes = []
            for path in self._shards(part):
                with path.open("rb") as file:
                    hashes.append(hashlib.file_digest(file, "sha256").hexdigest())
            kept[part] = hashes[0] if len(hashes) == 1 else digest(*hashes)
        return kept[part]

    def _read(self, path: Path, name: str) -> NDArray[Any]:
        values: NDArray[Any] = read_column(read_columns(path, [name]), name, path)
        return values

    def _labels(self, path: Path) -> Tensor:
        labels = self._read(path, self._label_column)
        if labels.dtype != object:
            given = torch.from_numpy(labels.astype(bool if labels.dtype == bool else np.int64))
            return check_labels(given, self.num_classes, f"'{path}'")
        known = {name: number for number, name in enumerate(self.class_names)}
        strange = [row for row, name in enumerate(labels) if name not in known]
        if strange:
            names = ", ".join(self.class_names[:10])
            raise ValueError(f"'{path}', row {strange[0]}: the class '{labels[strange[0]]}' is none of: {names}.")
        return torch.tensor([known[name] for name in labels])

    def _further(self, paths: list[Path]) -> dict[str, Tensor]:
        """Read the further columns of whole numbers or truth values that all files have, without gaps."""
        import pyarrow as pa

        own, columns = (self._image_column, self._label_column), {}
        for field in open_parquet(paths[0]).schema_arrow:
            if field.name in own or not (pa.types.is_integer(field.type) or pa.types.is_boolean(field.type)):
                continue
            if not all(field.name in open_parquet(path).schema_arrow.names for path in paths):
                continue
            tables = [read_columns(path, [field.name]) for path in paths]
            if not any(table.column(0).null_count for table in tables):
                parts = [read_column(table, field.name, path) for table, path in zip(tables, paths, strict=True)]
                kind = np.bool_ if pa.types.is_boolean(field.type) else np.int64
                columns[field.name] = torch.from_numpy(np.concatenate(parts).astype(kind))
        return columns

    def _load(self, part: Part) -> Rows:
        paths = self._shards(part)
        labels = [self._labels(path) for path in paths]
        starts = np.cumsum([0, *map(len, labels)])

        def make() -> Tensor:
            encoded = [_encoded(read_columns(path, [self._image_column]).column(0), path) for path in paths]

            def fetch(row: int) -> tuple[bytes, str]:
                shard = int(np.searchsorted(starts, row, side="right")) - 1
                place = row - int(starts[shard])
                return encoded[shard](place), f"'{paths[shard]}', row {place}"

            return decode_all(int(starts[-1]), fetch, self._size, self._crop)

        # Pillow's version is in the key because decoders differ in the last bit
        key = digest(self._hash(part), self._image_column, self._shape, PIL.__version__)
        pixels = cached_pixels(key, int(starts[-1]), make)
        if tuple(pixels.shape[2:]) != self.image_size:
            raise ValueError(
                f"'{paths[0]}' has images of {pixels.shape[2]}x{pixels.shape[3]}, the training part of "
                f"{self.image_size[0]}x{self.image_size[1]}. Give a `size` to resize all images to."
            )
        return TensorRows(pixels, torch.cat(labels), self._further(paths))


def _encoded(column: Any, path: Path) -> Callable[[int], bytes]:
    """Return a function that gives the encoded bytes of a row; bytes or a struct with ``bytes``."""
    import pyarrow as pa
    import pyarrow.compute as pc

    paths = None
    if pa.types.is_struct(column.type) and column.type.get_field_index("bytes") >= 0:
        if column.type.get_field_index("path") >= 0:
            paths = pc.struct_field(column, "path")
        column = pc.struct_field(column, "bytes")
    if not (pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type)):
        raise ValueError(f"'{path}': expected encoded images (bytes, or a struct with bytes), got {column.type}.")
    if column.null_count and paths is not None:
        row = pc.index(pc.is_null(column), True).as_py()
        raise ValueError(
            f"'{path}', row {row}: the image has no bytes, only a path ({paths[row].as_py()!r}). Embed the images in "
            "the file, or read them by ImageFolderSource or CsvSource."
        )
    column = column.cast(pa.large_binary()).combine_chunks()  # one array is looked up faster
    return lambda row: column[row].as_py() or b""
