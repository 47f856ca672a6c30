"""Images whose labels stand in a table."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from lit_backdoor.data.sources.base import Part, distinct, numbers
from lit_backdoor.data.sources.files import find
from lit_backdoor.data.sources.folder import FileSource
from lit_backdoor.data.sources.listing import Listing

__all__ = ["CsvSource"]

_PARTS: tuple[Part, Part] = ("train", "test")


class CsvSource(FileSource):
    """Image files and labels from two tables: text files with a header, columns divided by commas, semicolons or tabs.

    Labels are names, or whole numbers where all labels of the training part are. Names are numbered in sorted order.

    Args:
        train: Table of the training part, as it is or below ``$LIT_BACKDOOR_DATA``.
        test: Table of the test part.
        folder: Folder that paths of images are relative to; None takes each table's own.
        image_column: Name of the column of paths; None takes the first.
        label_column: Name of the column of labels; None takes the last.
        classes: Names of classes in the order of the labels; None takes them from the training part.
        size: Side of the square, or height and width, to resize to; None if all images have one size.
        in_memory: Whether to decode all images once and keep them.
        crop: Whether to cut the largest centered part of the size's shape before resizing.

    Raises:
        FileNotFoundError: When used, if a table is missing.
        ValueError: When used, if a column, a file or a label is wrong; names table and line.
    """

    def __init__(
        self,
        train: str,
        test: str,
        folder: str | None = None,
        image_column: str | None = None,
        label_column: str | None = None,
        classes: Sequence[str] | None = None,
        size: int | tuple[int, int] | None = None,
        in_memory: bool = False,
        crop: bool = False,
    ) -> None:
        super().__init__(size, in_memory, crop)
        self._tables: dict[Part, str] = {"train": train, "test": test}
        self._folder = folder
        self._columns_named = image_column, label_column
        self._classes = None if classes is None else distinct(classes)

    @cached_property
    def class_names(self) -> tuple[str, ...]:
        """The classes that were given, or those of the training part."""
        if self._classes is not None:
            return self._classes
        labels = {label for _, label in self._rows["train"]}
        if all(label.isdecimal() for label in labels):
            return numbers(max(map(int, labels)) + 1)
        return tuple(sorted(labels))

    @cached_property
    def _rows(self) -> dict[Part, list[tuple[str, str]]]:
        return {part: self._read(part) for part in _PARTS}

    def _path(self, part: Part) -> Path:
        return find(self._tables[part], f"Table '{self._tables[part]}'")

    def _read(self, part: Part) -> list[tuple[str, str]]:
        """Read paths and labels as they are written."""
        path = self._path(part)
        try:
            lines = path.read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"'{path}' is no table of text ({error}).") from error
        divider = max(",;\t", key=lines[0].count) if lines else ","
        try:
            header, *rows = csv.reader(lines, delimiter=divider) if lines else [[]]
        except csv.Error as error:  # such as a field of more than 131,072 characters
            raise ValueError(f"'{path}' is no table of text ({error}).") from error
        places = []
        for name, default in zip(self._columns_named, (0, len(header) - 1), strict=True):
            if name is not None and header.count(name) != 1:
                raise ValueError(f"'{path}' has no column '{name}', or two. It has: {', '.join(header)}.")
            places.append(default if name is None else header.index(name))
        if len(set(places)) < 2 or not rows:
            raise ValueError(f"Expected a header with a column of images and one of labels, then rows, in '{path}'.")
        short = [number for number, row in enumerate(rows, 2) if row and len(row) <= max(places)]
        if short:
            raise ValueError(f"'{path}', line {short[0]}: expected {len(header)} columns, got fewer.")
        return [(row[places[0]], row[places[1]].strip()) for row in rows if row]

    def _list(self, part: Part) -> Listing:
        path, known = self._path(part), {name: number for number, name in enumerate(self.class_names)}
        folder = path.parent if self._folder is None else find(self._folder, f"Image folder '{self._folder}'")
        files = Listing()
        for number, (name, label) in enumerate(self._rows[part], 2):
            place = folder / name
            if not place.is_file():
                raise ValueError(f"'{path}', line {number}: there is no image '{place}'.")
            label = str(int(label)) if label.isdecimal() and label not in known else label
            if label not in known:
                raise ValueError(
                    f"'{path}', line {number}: the class '{label}' is none of {', '.join(list(known)[:10])}."
                )
            files.add(str(place.parent), place.name, known[label])
        return files
