import pytest
import torch

from lit_backdoor.data import BackdoorDataModule, Split
from lit_backdoor.data.sources.base import Source, TensorRows
from lit_backdoor.triggers.base import Attack, Trigger


class MemorySource(Source):
    """Each image is filled with its row's number, so that a batch tells which rows it holds."""

    def __init__(self, n_train=200, n_test=50, classes=4, size=8, names="class"):
        self.sizes, self.classes, self.size, self.names, self.prepared = (n_train, n_test), classes, size, names, 0

    @property
    def class_names(self):
        return tuple(f"{self.names} {number}" for number in range(self.classes))

    @property
    def image_size(self):
        return (self.size, self.size)

    def prepare(self):
        self.prepared += 1

    def _load(self, part):
        numbers = torch.arange(self.sizes[part == "test"])
        images = (numbers % 200 + 10).to(torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, self.size, self.size)
        return TensorRows(images.contiguous(), numbers % self.classes, {"track": numbers // 5})

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


@pytest.fixture
def attack(Corner):
    return Attack(Corner(), target=1, rate=0.1, cover_rate=0.05)


@pytest.fixture
def data(source, attack):
    return BackdoorDataModule(source, Split(root_pool=20), attack, batch_size=16, eval_batch_size=64)
