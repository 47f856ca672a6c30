"""What holds for every source of the package; a new one is found by being there, and says here how it is made."""

import io
import struct

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tiny
import torch
from PIL import Image
from torch.utils.data import TensorDataset
from walk_parts import classes_of

from lit_backdoor.data import Source

SOURCES = classes_of(Source, "data")
SIZE, CLASSES, EACH = 6, ("ape", "bee"), 5
ROWS = len(CLASSES) * EACH


def picture(number):
    return Image.fromarray(np.full((SIZE, SIZE, 3), 10 * number + 5, np.uint8))


def class_folders(place):
    for number in range(ROWS):
        folder = place / CLASSES[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        picture(number).save(folder / f"{number}.png")
    return str(place)


def parquet(path):
    files = [io.BytesIO() for _ in range(ROWS)]
    for number, file in enumerate(files):
        picture(number).save(file, "PNG")
    path.parent.mkdir(exist_ok=True)
    pq.write_table(pa.table({"image": [f.getvalue() for f in files], "label": [n % 2 for n in range(ROWS)]}), path)
    return str(path)


def tensors():
    return torch.arange(ROWS * 3 * SIZE**2).view(ROWS, 3, SIZE, SIZE).to(torch.uint8), torch.arange(ROWS) % 2


class Module(tiny.pl.LightningDataModule):
    def train_dataloader(self):
        return torch.utils.data.DataLoader(TensorDataset(*tensors()), 4)

    test_dataloader = train_dataloader


def cifar10(folder):
    for part in ("train", "test"):
        parquet(folder / "cifar10" / f"{part}.parquet")
    return {"root": str(folder)}


def csv(folder):
    class_folders(folder)
    lines = [f"{CLASSES[number % 2]}/{number}.png,{CLASSES[number % 2]}" for number in range(ROWS)]
    (folder / "rows.csv").write_text("\n".join(["file,class", *lines]))
    return dict.fromkeys(("train", "test"), str(folder / "rows.csv"))


def semantic_folder(folder):
    for part in ("clean", "trigger"):
        class_folders(folder / part)
    return {"root": str(folder), "test": 0.4}


def tiny_imagenet(folder):
    for part in ("train", "val"):
        parquet(folder / "tiny-imagenet-50" / f"{part}.parquet")
    return {"root": str(folder)}


def torchvision(folder):
    raw = folder / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part in ("train", "t10k"):
        images, labels = struct.pack(">iiii", 2051, 10, 28, 28), struct.pack(">ii", 2049, 10)
        (raw / f"{part}-images-idx3-ubyte").write_bytes(images + bytes(range(10)) * 28 * 28)
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(labels + bytes(range(10)))
    return {"name": "MNIST", "root": str(folder)}


ARGUMENTS = {
    "Cifar10": cifar10,
    "CsvSource": csv,
    "DataModuleSource": lambda folder: {"datamodule": Module()},
    "ImageFolderSource": lambda folder: {part: class_folders(folder / part) for part in ("train", "test")},
    "ParquetSource": lambda folder: {part: parquet(folder / f"{part}.parquet") for part in ("train", "test")},
    "SemanticFolderSource": semantic_folder,
    "SyntheticSigns": lambda folder: {"num_classes": 4, "train_per_class": 3, "test_per_class": 2, "size": 16},
    "TensorSource": lambda folder: {part: tensors() for part in ("train", "test")},
    "TinyImageNet": tiny_imagenet,
    "TorchvisionSource": torchvision,
    "UnlabeledFolder": lambda folder: {"root": class_folders(folder)},
}


def parts(name, source):
    return [source.train()] if name == "UnlabeledFolder" else [source.train(), source.test()]


def everything(rows):
    return rows.images(torch.arange(len(rows)))


@pytest.fixture(params=SOURCES)
def made(request, tmp_path, monkeypatch):
    """A source's name, and a function that makes it of the same files each time."""
    monkeypatch.setenv("LIT_BACKDOOR_CACHE", str(tmp_path / "cache"))
    assert request.param in ARGUMENTS, f"say in ARGUMENTS how {request.param} is made"
    arguments = ARGUMENTS[request.param](tmp_path / "files")
    return request.param, lambda: SOURCES[request.param](**arguments)


@pytest.fixture(autouse=True)
def files(tmp_path):
    (tmp_path / "files").mkdir()


def test_images_are_uint8_of_one_size_by_row(made):
    name, make = made
    source = make()
    for rows in parts(name, source):
        images = everything(rows)
        assert images.dtype == torch.uint8
        assert images.shape == (len(rows), 3, *source.image_size)
        assert torch.equal(rows.images(torch.tensor([3, 0, 3])), images[[3, 0, 3]])


def test_labels_name_classes(made):
    name, make = made
    source = make()
    assert source.num_classes == len(set(source.class_names)) == len(source.class_names)
    for rows in parts(name, source):
        assert rows.labels.dtype == torch.int64
        assert rows.labels.shape == (len(rows),)
        least = -1 if name == "UnlabeledFolder" else 0
        assert ((rows.labels >= least) & (rows.labels < max(source.num_classes, 0))).all()
        assert all(column.shape == (len(rows),) for column in rows.columns.values())


def test_fingerprint_and_rows_are_those_of_a_second_object(made):
    name, make = made
    one, two = make(), make()
    assert one.fingerprint() == two.fingerprint() == one.fingerprint()
    assert set(one.fingerprint()) <= set("0123456789abcdef")
    for rows, again in zip(parts(name, one), parts(name, two), strict=True):
        assert torch.equal(everything(rows), everything(again))
        assert torch.equal(rows.labels, again.labels)
    assert one.fingerprint() == two.fingerprint()  # also once its parts are read
