import pytest
import torch

from lit_backdoor.data.sources.base import Rows, Source
from lit_backdoor.triggers.base import Trigger


class MemoryRows(Rows):
    def __init__(self, images, labels, columns=None):
        self.pixels, self.labels, self.columns = images, labels, columns or {}

    def images(self, index):
        return self.pixels.index_select(0, index)


class MemorySource(Source):
    """Each image is filled with its row's number, so that a batch tells which rows it holds."""

    def __init__(self, n_train=200, n_test=50, classes=4, size=8, offset=10):
        self.class_names = tuple(f"class {number}" for number in range(classes))
        self.image_size = (size, size)
        self.prepared = 0
        self._parts = [self._rows(n_train, classes, size, offset), self._rows(n_test, classes, size, offset)]

    @staticmethod
    def _rows(count, classes, size, offset):
        numbers = torch.arange(count)
        images = (numbers % 200 + offset).to(torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, size, size).contiguous()
        return MemoryRows(images, numbers % classes, {"track": numbers // 5})

    def prepare(self):
        self.prepared += 1

    def train(self):
        return self._parts[0]

    def test(self):
        return self._parts[1]

    def fingerprint(self):
        return "memory"


class Corner(Trigger):
    """Whitens one pixel; the planted forms whiten another, so that tests tell them apart."""

    def __init__(self, benign=False):
        super().__init__()
        self.alters_benign = benign
        self.rows_seen = []

    def _white(self, images, column):
        self.rows_seen.append(len(images))
        images = images.clone()
        images[:, :, 0, column] = 1
        return images

    def forward(self, images, index):
        return self._white(images, 0)

    def poison(self, images, index):
        return self._white(images, 1)

    def cover(self, images, index):
        return self._white(images, 2)

    def benign(self, images, generator):
        return images * 0.5 if self.alters_benign else images


@pytest.fixture
def source():
    return MemorySource()


@pytest.fixture(name="Corner")
def corner_class():
    return Corner


@pytest.fixture(name="MemorySource")
def memory_source_class():
    return MemorySource
