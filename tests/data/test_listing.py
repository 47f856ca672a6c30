import sys
from pathlib import Path

import pytest
from PIL import Image

from lit_backdoor.data.sources import ImageFolderSource, UnlabeledFolder
from lit_backdoor.data.sources.listing import Listing, image_files


@pytest.fixture
def root(tmp_path):
    for name in ("cat/0.png", "cat/deep/1.JPG", "dog/0.png", "dog/.hidden.png", "dog/.ipynb_checkpoints/0.png"):
        path = tmp_path / "train" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(path)
    return tmp_path / "train"


def names(folder):
    return [name for _, name in image_files(folder)]


def test_hidden_files_and_folders_are_no_images(root):
    assert names(root / "dog") == ["0.png"]
    assert names(root) == ["0.png", "1.JPG", "0.png"]
    assert len(UnlabeledFolder(str(root)).train()) == 3


def test_linked_folders_and_files_are_followed(root, tmp_path):
    more = tmp_path / "more"
    more.mkdir()
    Image.new("RGB", (8, 8)).save(more / "2.png")
    (root / "cat" / "linked").symlink_to(more)
    (root / "dog" / "2.png").symlink_to(more / "2.png")
    (root / "bird").symlink_to(more)
    assert names(root / "cat") == ["0.png", "1.JPG", "2.png"]
    source = ImageFolderSource(str(root), str(root))
    assert source.class_names == ("bird", "cat", "dog")
    assert source.train().labels.tolist() == [0, 1, 1, 1, 2, 2]


@pytest.mark.parametrize("target", [".", "..", "../.."])
def test_cycles_are_refused(root, target):
    (root / "cat" / "deep" / "loop").symlink_to(root / "cat" / "deep" / target)
    with pytest.raises(ValueError, match="is a link to a folder that holds it"):
        image_files(root)


def test_links_to_nowhere_are_refused(root):
    (root / "cat" / "3.png").symlink_to(root / "nowhere.png")
    with pytest.raises(ValueError, match=r"3.png' is a link to nowhere"):
        image_files(root / "cat")


def test_order_is_folder_by_folder(tmp_path):
    for name in ("b.png", "a/z.png", "a.png", "a-b/c.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = [Path(*file).relative_to(tmp_path) for file in image_files(tmp_path)]
    assert found == sorted(found)
    assert [str(path) for path in found] == ["a/z.png", "a-b/c.png", "a.png", "b.png"]


def test_a_row_takes_little_memory():
    listing = Listing()
    for row in range(20_000):
        listing.add("/data/train/n01440764", f"n01440764_{row:06}.JPEG", row % 10)
    size = sum(sys.getsizeof(part) for part in vars(listing).values())
    assert size / len(listing) < 48  # the name has 21 bytes; arrays keep room to grow
    assert listing[12_345] == "/data/train/n01440764/n01440764_012345.JPEG"
    assert listing.labels[12_345] == 5


def test_order_of_classes_is_the_given_one(root):
    source = ImageFolderSource(str(root), str(root), classes=["dog", "bird", "cat"])
    assert source.class_names == ("dog", "bird", "cat")
    assert source.train().labels.tolist() == [2, 2, 0]
    with pytest.raises(ValueError, match="the class 'dog', which `classes` do not name"):
        ImageFolderSource(str(root), str(root), classes=["cat"]).train()
    with pytest.raises(ValueError, match="'cat' twice"):
        ImageFolderSource(str(root), str(root), classes=["cat", "cat"])
