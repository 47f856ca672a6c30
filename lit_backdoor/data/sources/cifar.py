"""CIFAR-10 (Krizhevsky 2009), from parquet files or from torchvision's copy."""

from __future__ import annotations

from pathlib import Path

from lit_backdoor.data.sources.base import DelegatedSource, Source
from lit_backdoor.data.sources.files import data_folders, not_found
from lit_backdoor.data.sources.parquet import ParquetSource
from lit_backdoor.data.sources.torchvision_source import TorchvisionSource
from lit_backdoor.presets import cache_folder

__all__ = ["Cifar10"]


class Cifar10(DelegatedSource):
    """CIFAR-10: 50,000 training and 10,000 test images, 32x32, 10 classes.

    Takes ``cifar10/{train,test}.parquet`` where they lie in the data folder, else torchvision's copy there, or in
    the cache folder, which `prepare` downloads.

    Args:
        root: The data folder; None means ``$LIT_BACKDOOR_DATA``.

    Raises:
        FileNotFoundError: When used, if it is nowhere and was not downloaded.
    """

    def __init__(self, root: str | None = None) -> None:
        self.root = root

    def prepare(self) -> None:
        """Download torchvision's copy unless there is one, or parquet files.

        Raises:
            FileNotFoundError: If it cannot be downloaded; names the places where parquet files and the copy may lie.
        """
        if self._parquet() is None:
            copy = self._torchvision()
            try:
                copy.prepare()
            except FileNotFoundError as error:
                places = [folder / "cifar10/train.parquet" for folder in data_folders(self.root)]
                missing = not_found("CIFAR-10", [*places, copy.root / "cifar-10-batches-py"])
                raise FileNotFoundError(f"{missing} Downloading it failed: {error.__cause__}.") from error

    def _find(self) -> Source:
        folder = self._parquet()
        if folder is None:
            return self._torchvision()
        return ParquetSource(str(folder / "train.parquet"), str(folder / "test.parquet"))

    def _parquet(self) -> Path | None:
        folders = [folder / "cifar10" for folder in data_folders(self.root)]
        return next((folder for folder in folders if (folder / "train.parquet").exists()), None)

    def _torchvision(self) -> TorchvisionSource:
        own = [folder for folder in data_folders(self.root) if (folder / "cifar-10-batches-py").exists()]
        root = own[0] if own else Path(self.root) if self.root else cache_folder() / "data"
        return TorchvisionSource("CIFAR10", root=str(root))
