"""Sources of images behind one protocol: uint8 rows by index, labels, columns, class names, a fingerprint."""

from lit_backdoor.data.sources.base import Rows, Source, TensorRows
from lit_backdoor.data.sources.cifar import Cifar10
from lit_backdoor.data.sources.csv_source import CsvSource
from lit_backdoor.data.sources.folder import ImageFolderSource, UnlabeledFolder
from lit_backdoor.data.sources.parquet import ParquetSource
from lit_backdoor.data.sources.semantic_folder import SemanticFolderSource
from lit_backdoor.data.sources.signs import SyntheticSigns
from lit_backdoor.data.sources.tensors import TensorSource
from lit_backdoor.data.sources.tiny_imagenet import TinyImageNet
from lit_backdoor.data.sources.torchvision_source import TorchvisionSource

__all__ = [
    "Cifar10",
    "CsvSource",
    "ImageFolderSource",
    "ParquetSource",
    "Rows",
    "SemanticFolderSource",
    "Source",
    "SyntheticSigns",
    "TensorRows",
    "TensorSource",
    "TinyImageNet",
    "TorchvisionSource",
    "UnlabeledFolder",
]
