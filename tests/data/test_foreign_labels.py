import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, Subset, TensorDataset
from torchvision import datasets
from torchvision.transforms.functional import to_tensor

from lit_backdoor.data.foreign import labels_of


class Stored(Dataset):
    """Stores labels 5 to 8; subclasses serve others."""

    def __init__(self):
        self.targets = [5 + row % 4 for row in range(12)]
        self.reads = 0

    def __len__(self):
        return len(self.targets)

    def __getitem__(self, index):
        self.reads += 1
        return torch.zeros(3, 4, 4), self.targets[index]


class Renumbered(Stored):
    def __getitem__(self, index):
        return super().__getitem__(index)[0], self.targets[index] - 5


class Filtered(Stored):
    """Serves the rows of the label 6."""

    def __len__(self):
        return 3

    def __getitem__(self, index):
        return super().__getitem__(4 * index + 1)


class Names(Renumbered):
    def __init__(self):
        super().__init__()
        self.targets, self.numbers = [f"class {label}" for label in self.targets], self.targets

    def __getitem__(self, index):
        return torch.zeros(3, 4, 4), self.numbers[index] - 5


def read(dataset, **options):
    return labels_of(DataLoader(dataset, batch_size=5, **options)).tolist()


@pytest.mark.parametrize("kind", [Renumbered, Filtered, Names])
def test_labels_are_those_that_the_dataset_serves(kind):
    dataset = kind()
    served = [dataset[row][1] for row in range(len(dataset))]
    assert read(dataset) == served
    assert read(Subset(Subset(dataset, [2, 0, 1]), [1, 2])) == [served[0], served[1]]


class Cifar(datasets.CIFAR10):
    """With rows of its own in place of files."""


def cifar(kind=datasets.CIFAR10, **options):
    made = object.__new__(kind)
    datasets.VisionDataset.__init__(made, "", transform=to_tensor, **options)
    made.data, made.targets = torch.zeros(8, 4, 4, 3, dtype=torch.uint8).numpy(), [3, 1, 2, 0, 3, 1, 2, 0]
    return made


def test_labels_that_torchvision_stores_are_not_read_through_images(monkeypatch):
    dataset = cifar()
    want = [dataset[row][1] for row in range(8)]
    nested = Subset(Subset(dataset, [6, 5, 4, 3]), [0, 3])
    monkeypatch.setattr(datasets.CIFAR10, "__getitem__", lambda *_: pytest.fail("read an image"))
    assert read(dataset) == want
    assert read(nested) == [2, 0]


@pytest.mark.parametrize(
    "options", [{"target_transform": lambda label: 3 - label}, {"kind": Cifar}]
)  # fmt: skip
def test_labels_that_may_be_changed_are_read(options):
    dataset = cifar(**options)
    dataset.targets = [0] * 8
    assert read(dataset) == [dataset[row][1] for row in range(8)]


def test_image_folder_serves_its_samples_not_its_targets(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (4, 4)).save(tmp_path / name / "0.png")
    dataset = datasets.ImageFolder(tmp_path, to_tensor)
    dataset.targets = [7, 7]
    assert read(dataset) == [0, 1]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (torch.zeros(60_000, 1, dtype=torch.int64), r"got torch.int64 \[5, 1\]. Squeeze them"),
        (torch.zeros(60_000, 10, dtype=torch.int64), r"got torch.int64 \[5, 10\]. Give the number"),
        (torch.zeros(60_000), r"got torch.float32 \[5\]"),
        (torch.zeros(60_000, dtype=torch.bool), "got torch.bool"),
    ],
)
def test_labels_of_another_shape_are_refused_by_the_first_batch(labels, message):
    served = []

    class Counting(TensorDataset):
        def __getitem__(self, index):
            served.append(index)
            return super().__getitem__(index)

    with pytest.raises(ValueError, match=f"Expected integer labels .*{message}"):
        read(Counting(torch.zeros(60_000, 1, 1, 1), labels))
    assert len(served) == 5


def test_names_of_classes_are_refused():
    with pytest.raises(ValueError, match="Expected integer labels .* of str. Number the classes"):
        read([(torch.zeros(3, 4, 4), "cat")] * 3)
