"""Tiny ImageNet, from parquet files or from the extracted archive."""

from __future__ import annotations

import csv
from functools import cached_property
from pathlib import Path

from lit_backdoor.data.sources.base import DelegatedSource, Part, Source
from lit_backdoor.data.sources.files import data_folders, not_found
from lit_backdoor.data.sources.folder import FileSource
from lit_backdoor.data.sources.listing import Listing, image_files
from lit_backdoor.data.sources.parquet import ParquetSource

__all__ = ["TinyImageNet"]

_PARQUET = "tiny-imagenet-50"
_EXTRACTED = "tiny-imagenet-200"


class TinyImageNet(DelegatedSource):
    """Tiny ImageNet, 64x64; its validation images, which have labels, are the test part.

    Takes ``tiny-imagenet-50/{train,val}.parquet`` (50 classes) where they lie in the data folder, else the
    extracted archive ``tiny-imagenet-200``. There is nothing to download automatically.

    Args:
        root: The data folder; None means ``$LIT_BACKDOOR_DATA``.

    Raises:
        FileNotFoundError: When used, if it is nowhere.
    """

    def __init__(self, root: str | None = None) -> None:
        self.root = root

    def _find(self) -> Source:
        folders = data_folders(self.root)
        for folder in folders:
            place = folder / _PARQUET
            if (place / "train.parquet").exists():
                parts = str(place / "train.parquet"), str(place / "val.parquet")
                return ParquetSource(*parts, class_names=_class_file(place / "classes.csv"))
            if (folder / _EXTRACTED / "wnids.txt").exists():
                return _Extracted(folder / _EXTRACTED)
        raise not_found("Tiny ImageNet", [folder / name for folder in folders for name in (_PARQUET, _EXTRACTED)])


class _Extracted(FileSource):
    """The folder that the archive ``tiny-imagenet-200.zip`` contains."""

    def __init__(self, folder: Path) -> None:
        super().__init__(size=None, in_memory=True)
        self._folder = folder

    @cached_property
    def _wnids(self) -> list[str]:
        return sorted((self._folder / "wnids.txt").read_text().split())

    @cached_property
    def class_names(self) -> tuple[str, ...]:
        """The first word of each class, or its WordNet number where two classes share that word."""
        table, words = self._folder / "words.txt", {}
        if table.exists():
            words = dict(line.split("\t", 1) for line in table.read_text().splitlines() if "\t" in line)
        return _readable(self._wnids, [words.get(wnid, wnid) for wnid in self._wnids])

    def _list(self, part: Part) -> Listing:
        label = {wnid: number for number, wnid in enumerate(self._wnids)}
        folder, notes = self._folder / ("train" if part == "train" else "val"), self._folder / "val/val_annotations.txt"
        files = Listing()
        if part == "train" or not notes.exists() or not (folder / "images").is_dir():  # sorted into class folders
            for wnid in label:
                for place, name in image_files(folder / wnid):
                    files.add(place, name, label[wnid])
        else:
            for name, wnid in sorted(line.split("\t")[:2] for line in notes.read_text().splitlines() if "\t" in line):
                if wnid not in label:
                    raise ValueError(f"'{notes}': '{name}' has the class '{wnid}', which wnids.txt does not name.")
                files.add(str(folder / "images"), name, label[wnid])
        if not len(files):
            raise ValueError(
                f"Expected images in '{folder}', in a folder per class (n01443537, …) or with val_annotations.txt, "
                "found none. Extract tiny-imagenet-200.zip again."
            )
        return files


def _class_file(path: Path) -> list[str] | None:
    """Read names from a table ``label,wnid,words``, if there is one."""
    if not path.exists():
        return None
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = sorted(csv.DictReader(file), key=lambda row: int(row["label"]))
        return list(_readable([row["wnid"] for row in rows], [row["words"] for row in rows]))
    except (KeyError, TypeError, AttributeError, ValueError, csv.Error) as error:
        raise ValueError(f"Expected a table with the columns label, wnid and words at '{path}' ({error!r}).") from error


def _readable(wnids: list[str], words: list[str]) -> tuple[str, ...]:
    first = [text.split(",")[0].strip() for text in words]
    return tuple(name if first.count(name) == 1 else wnid for wnid, name in zip(wnids, first, strict=True))
