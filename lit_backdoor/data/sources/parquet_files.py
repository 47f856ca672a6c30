"""Parquet files: finding the shards of a part, and reading columns with errors of one line."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lit_backdoor.data.sources.base import Part
from lit_backdoor.data.sources.files import find

__all__ = ["find_shards", "metadata_names", "open_parquet", "read_column", "read_columns"]

_PREFIXES: dict[Part, tuple[str, ...]] = {"train": ("train",), "test": ("test", "validation", "valid", "val")}
_RATIO, _FREE = 64, 2**28  # what a file may unfold to: so many times its size, and at least 256 MB
_ROWS_AT_ONCE = 4  # images or texts: a file may hold a large one once and name it in every row


def find_shards(given: str | Sequence[str], part: Part) -> list[Path]:
    """Find the files of a part, sorted within each pattern.

    Args:
        given: A file, a folder, a pattern such as ``data/train-*.parquet``, or a list of these, as they are or below
            ``$LIT_BACKDOOR_DATA``. Of a folder that holds several parts only files are taken that begin with the
            part's name.
        part: The part.

    Raises:
        FileNotFoundError: If there is none.
    """
    shards: list[Path] = []
    for path in [given] if isinstance(given, str) else given:
        if set("*?[") & set(Path(path).name):
            folder = find(str(Path(path).parent), f"Folder of the parquet files '{path}'")
            found = sorted(folder.glob(Path(path).name))
        else:
            place = find(path, f"Parquet file '{path}'")
            found = _of_part(sorted(place.glob("*.parquet")), part) if place.is_dir() else [place]
        if not found:
            raise FileNotFoundError(f"Expected parquet files at '{path}', found none.")
        shards += found
    return shards


def _of_part(files: list[Path], part: Part) -> list[Path]:
    for prefix in _PREFIXES[part]:
        if named := [file for file in files if file.name.startswith(prefix)]:
            return named
    others = tuple(prefix for prefixes in _PREFIXES.values() for prefix in prefixes)
    return [] if any(file.name.startswith(others) for file in files) else files


def open_parquet(path: Path) -> Any:
    """Open a file and check its columns' names.

    Raises:
        ValueError: If it is no parquet file, two columns have one name, or it would unfold to far more than its size.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    size = path.stat().st_size
    try:
        file = pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"'{path}' ({size} bytes) is not a readable parquet file: {error}") from error
    names = file.schema_arrow.names
    twice = [name for number, name in enumerate(names) if name in names[:number]]
    if twice:
        raise ValueError(f"'{path}' has two columns '{twice[0]}'. Rename one.")
    groups = (file.metadata.row_group(number) for number in range(file.metadata.num_row_groups))
    unfolded = max(sum(group.total_byte_size for group in groups), 8 * file.metadata.num_rows)
    if unfolded > _RATIO * size + _FREE:
        raise ValueError(f"'{path}' ({size} bytes) would unfold to {unfolded} bytes, which no images do.")
    return file


def read_columns(path: Path, columns: Sequence[str], limit: int | None = None) -> Any:
    """Read columns into a table; of ``limit`` rows, if given.

    Raises:
        ValueError: If a column is missing, there are no rows, or the file is damaged or unfolds to far more than its
            size.
    """
    import pyarrow as pa

    file = open_parquet(path)
    missing = [name for name in columns if name not in file.schema_arrow.names]
    if missing:
        raise ValueError(f"'{path}' has no column '{missing[0]}'. It has: {', '.join(file.schema_arrow.names)}.")
    if not file.metadata.num_rows:
        raise ValueError(f"'{path}' has no rows.")
    batches, count, size, most = [], 0, 0, _RATIO * path.stat().st_size + _FREE
    plain = all(pa.types.is_primitive(file.schema_arrow.field(name).type) for name in columns)
    rows = limit or (128 if plain else _ROWS_AT_ONCE)
    try:
        for batch in file.iter_batches(rows, columns=list(columns)):
            batches.append(batch)
            count, size = count + len(batch), size + batch.nbytes
            if size > most:
                raise ValueError(f"'{path}' unfolds to more than {most} bytes, which no images do.")
            if limit is not None:
                break
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"'{path}' is damaged, at row {count} or after it: {error}") from error
    return pa.Table.from_batches(batches)


def read_column(table: Any, name: str, path: Path) -> Any:
    """Take an integer, bool or string column without gaps; numpy ``[N]``.

    Raises:
        ValueError: If it is of another type, or a row is empty.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    column = table.column(name)
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    kind = column.type
    text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    if not (text or pa.types.is_integer(kind) or pa.types.is_boolean(kind)):
        raise ValueError(f"'{path}': expected whole numbers or names in column '{name}', got {kind}.")
    if column.null_count:
        row = pc.index(pc.is_null(column), True).as_py()
        raise ValueError(f"'{path}', row {row}: column '{name}' is empty.")
    return column.to_numpy()


def metadata_names(schema: Any, label_column: str) -> tuple[str, ...] | None:
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
