"""Where a person's images come from: folders, parquet files, tables, or any source that is named."""

from __future__ import annotations

from argparse import ArgumentError
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lit_backdoor.chain.testing import build
from lit_backdoor.data.sources import CsvSource, ImageFolderSource, ParquetSource, Source
from lit_backdoor.data.sources.listing import TEST_PARTS
from lit_backdoor.data.sources.parquet_files import find_shards, open_parquet
from lit_backdoor.presets import at_home, read_config
from lit_backdoor.refusals import one_line

__all__ = ["Data", "check_apart", "open_source"]

Data = str | Path | Mapping[str, Any] | Source

_TABLES = (".csv", ".tsv")
_COLUMNS = {"image_column": ("image", "img"), "label_column": ("label", "labels", "fine_label")}  # on the Hub


def open_source(data: Data, size: int | None) -> Source:
    """Open the source of images; those of files are cut to squares and brought to a size while they are decoded.

    Args:
        data: A folder of class folders, or of ``train`` and ``test`` (or ``val``), of which the latter is taken; a
            parquet file, or a folder of them; a table (``.csv``, ``.tsv``); a YAML file that names a source by its
            class path, its content, or a source.
        size: Side of the images in pixels; None leaves them as they are.

    Raises:
        FileNotFoundError: If there is no such folder or file.
        ValueError: If it is none of these, or a source that cannot be built.
    """
    if isinstance(data, Source):
        return data
    if isinstance(data, Mapping):
        return _build(data, "the source")
    path, crop = at_home(data), size is not None
    if not path.exists():
        raise FileNotFoundError(f"Expected a folder of images, a parquet file or a table at '{path}', found none.")
    if path.suffix in (".yaml", ".yml"):
        described = read_config("sources", path)
        if not isinstance(described, Mapping) or "class_path" not in described:
            raise ValueError(f"Expected {path} to name a source: class_path, and init_args.")
        return _build(described, str(path))
    if path.suffix == ".parquet" or (path.is_dir() and any(path.glob("*.parquet"))):
        shards = [str(shard) for shard in _shards(path)]
        return ParquetSource(shards, shards, size=size, crop=crop, **_columns(path, shards[0]))
    if path.suffix in _TABLES:
        return CsvSource(str(path), str(path), size=size, crop=crop)
    if path.is_file():
        raise ValueError(
            f"Expected a folder of class folders, a parquet file, a table (.csv) or a source (.yaml), got {path}."
        )
    part = next((part for part in TEST_PARTS if (path / "train").is_dir() and (path / part).is_dir()), "")
    here = str(path / part)
    return ImageFolderSource(here, here, size=size, crop=crop)


def check_apart(out: Path, data: Data) -> None:
    """Check that results are not written among the images, where their folder would be taken for a class.

    Raises:
        ValueError: If they are.
    """
    if not isinstance(data, str | Path) or not (folder := at_home(data)).is_dir():
        return
    if out.resolve().is_relative_to(folder.resolve()):
        raise ValueError(
            f"Expected --out outside the folder of the images, got '{out}' in '{data}', where it would be taken for a "
            "class. Give another --out."
        )


def _build(described: Mapping[str, Any], where: str) -> Source:
    try:
        return build(described)  # type: ignore[no-any-return]
    except ArgumentError as error:
        raise ValueError(f"Expected {where} to name a source that can be built: {one_line(str(error))}") from error


def _shards(path: Path) -> list[Path]:
    """Find the files of the test part, or of the training part where there is no other."""
    try:
        return find_shards(str(path), "test")
    except FileNotFoundError:
        return find_shards(str(path), "train")


def _columns(path: Path, shard: str) -> dict[str, Any]:
    """Find the columns of images and labels by the names that are usual."""
    known: Sequence[str] = open_parquet(Path(shard)).schema_arrow.names
    found = {}
    for column, usual in _COLUMNS.items():
        names = [name for name in usual if name in known]
        if not names:
            raise ValueError(
                f"Expected a column {' or '.join(usual)} in '{path}', got {', '.join(known)}. Name the columns in a "
                "file and give it as --data x.yaml: {class_path: lit_backdoor.data.ParquetSource, init_args: "
                f"{{train: '{path}', test: '{path}', image_column: …, label_column: …}}}}."
            )
        found[column] = names[0]
    return found
