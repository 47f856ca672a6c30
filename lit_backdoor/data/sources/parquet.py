"""Images in parquet files, in the layout of the common model hubs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import torch
from torch import Tensor

from lit_backdoor.data.sources.base import Part, Rows, Source, TensorRows, check_labels, digest, numbers, size_pair
from lit_backdoor.data.sources.files import cached_pixels, decode, decode_all, find

__all__ = ["ParquetSource"]


class ParquetSource(Source):
    """Two parquet files with encoded images, decoded once into memory (and kept in the cache folder).

    ``image`` holds encoded bytes, or a struct of ``bytes`` and ``path``; ``label`` holds whole numbers. Further
    integer and bool columns without gaps become `Rows.columns`; others are left out.

    Args:
        train: Path of the training part, as it is or below ``$LIT_BACKDOOR_DATA``.
        test: Path of the test part.
        class_names: Names in the order of the labels. None takes them from the file's metadata (``class_names``
            with commas between, or the hub's features), or else numbers up to the largest training label.
        size: Side of the square, or height and width, to resize to; None if all images have one size.
        image_column: Name of the image column.
        label_column: Name of the label column.

    Raises:
        FileNotFoundError: When used, if a file is missing.
        ValueError: When used, if a file, a column, an image or a label is wrong; names file and row.
    """

    def __init__(
        self,
        train: str,
        test: str,
        class_names: list[str] | None = None,
        size: int | tuple[int, int] | None = None,
        image_column: str = "image",
        label_column: str = "label",
    ) -> None:
        self._paths: dict[Part, str] = {"train": train, "test": test}
        self._given_names = None if class_names is None else tuple(class_names)
        self._size = None if size is None else size_pair(size)
        self._image_column, self._label_column = image_column, label_column

    @cached_property
    def class_names(self) -> tuple[str, ...]:
        """Names in the order of the labels."""
        if self._given_names is not None:
            return self._given_names
        path = self._path("train")
        named = _metadata_names(_open(path).schema_arrow, self._label_column)
        if named is not None:
            return named
        labels = _column(_read(path, [self._label_column]), self._label_column, path)
        return numbers(int(labels.max()) + 1)

    @cached_property
    def image_size(self) -> tuple[int, int]:
        """Height and width of every image."""
        if self._size is not None:
            return self._size
        path = self._path("train")
        first = _read(path, [self._image_column], limit=1)
        height, width, _ = decode(_encoded(first.column(0), path)(0), f"'{path}', row 0").shape
        return height, width

    def fingerprint(self) -> str:
        """Hash the files' content, the columns' names, the size and the class names."""
        columns = self._image_column, self._label_column
        files = self._file_hash("train"), self._file_hash("test")
        return digest("parquet", *files, *columns, self._size, self.class_names)

    def _path(self, part: Part) -> Path:
        return find(self._paths[part], f"Parquet file '{self._paths[part]}'")

    def _file_hash(self, part: Part) -> str:
        hashes: dict[Part, str] = self.__dict__.setdefault("_hashes", {})
        if part not in hashes:
            with self._path(part).open("rb") as file:
                hashes[part] = hashlib.file_digest(file, "sha256").hexdigest()
        return hashes[part]

    def _numbers(self, path: Path) -> list[str]:
        """List the further columns that hold whole numbers or truth values."""
        import pyarrow as pa

        own = (self._image_column, self._label_column)
        fields = (field for field in _open(path).schema_arrow if field.name not in own)
        return [field.name for field in fields if pa.types.is_integer(field.type) or pa.types.is_boolean(field.type)]

    def _load(self, part: Part) -> Rows:
        path = self._path(part)
        further = self._numbers(path)
        table = _read(path, [self._label_column, *further])
        labels = check_labels(_column(table, self._label_column, path), self.num_classes, f"'{path}'")
        columns = {name: _column(table, name, path) for name in further if not table.column(name).null_count}

        def make() -> Tensor:
            encoded = _encoded(_read(path, [self._image_column]).column(0), path)
            return decode_all(len(labels), lambda row: (encoded(row), f"'{path}', row {row}"), self._size)

        # Pillow's version is in the key because decoders differ in the last bit
        key = digest(self._file_hash(part), self._image_column, self._size, PIL.__version__)
        pixels = cached_pixels(key, len(labels), make)
        if tuple(pixels.shape[2:]) != self.image_size:
            raise ValueError(
                f"'{path}' has images of {pixels.shape[2]}x{pixels.shape[3]}, the training part of "
                f"{self.image_size[0]}x{self.image_size[1]}. Give a `size` to resize all images to."
            )
        return TensorRows(pixels, labels, columns)


def _open(path: Path) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"'{path}' ({path.stat().st_size} bytes) is not a readable parquet file: {error}") from error


def _read(path: Path, columns: Sequence[str], limit: int | None = None) -> Any:
    """Read columns into a table; of ``limit`` rows, if given."""
    import pyarrow as pa

    file = _open(path)
    missing = [name for name in columns if name not in file.schema_arrow.names]
    if missing:
        raise ValueError(f"'{path}' has no column '{missing[0]}'. It has: {', '.join(file.schema_arrow.names)}.")
    if not file.metadata.num_rows:
        raise ValueError(f"'{path}' has no rows.")
    try:
        if limit is None:
            return file.read(columns=list(columns))
        return pa.Table.from_batches([next(file.iter_batches(limit, columns=list(columns)))])
    except (pa.ArrowException, OSError) as error:
        where = f"row {_readable_rows(file, columns)} or after it"
        raise ValueError(f"'{path}' is damaged, at {where}: {error}") from error


def _readable_rows(file: Any, columns: Sequence[str]) -> int:
    """Count the rows before the first that cannot be read, to within a batch."""
    import pyarrow as pa

    count = 0
    try:
        for batch in file.iter_batches(256, columns=list(columns)):
            count += len(batch)
    except (pa.ArrowException, OSError):
        pass
    return count


def _column(table: Any, name: str, path: Path) -> Tensor:
    """Read an integer or bool column as int64 or bool ``[N]``."""
    import pyarrow as pa
    import pyarrow.compute as pc

    column = table.column(name)
    if not (pa.types.is_integer(column.type) or pa.types.is_boolean(column.type)):
        raise ValueError(f"'{path}': expected whole numbers in column '{name}', got {column.type}.")
    if column.null_count:
        row = pc.index(pc.is_null(column), True).as_py()
        raise ValueError(f"'{path}', row {row}: column '{name}' is empty.")
    kind = np.bool_ if pa.types.is_boolean(column.type) else np.int64
    return torch.from_numpy(np.array(column.to_numpy(), dtype=kind))


def _encoded(column: Any, path: Path) -> Any:
    """Return a function that gives the encoded bytes of a row; bytes or a struct with ``bytes``."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_struct(column.type) and column.type.get_field_index("bytes") >= 0:
        column = pc.struct_field(column, "bytes")
    if not (pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type)):
        raise ValueError(f"'{path}': expected encoded images (bytes, or a struct with bytes), got {column.type}.")
    if isinstance(column, pa.ChunkedArray):  # one array is looked up faster
        column = column.cast(pa.large_binary()).combine_chunks()
    return lambda row: column[row].as_py() or b""


def _metadata_names(schema: Any, label_column: str) -> tuple[str, ...] | None:
    """Read class names from a file's metadata, or from the features that hubs write there."""
    metadata = schema.metadata or {}
    for key in (b"class_names", b"wnids"):
        if key in metadata:
            return tuple(metadata[key].decode(errors="replace").split(","))
    try:
        names = json.loads(metadata[b"huggingface"])["info"]["features"][label_column]["names"]
    except (LookupError, TypeError, ValueError):  # not there, or of another form
        return None
    return tuple(map(str, names)) if isinstance(names, list) and names else None
