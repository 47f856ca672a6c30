import gzip
import struct

import numpy as np
import pytest
import torch
from PIL import Image

from lit_backdoor.data import BackdoorDataModule, Split
from lit_backdoor.data.sources import ImageFolderSource, TorchvisionSource, UnlabeledFolder


def save(path, value, size=(4, 6)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((*size, 3), value, np.uint8)).save(path)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.delenv("LIT_BACKDOOR_DATA", raising=False)
    monkeypatch.setenv("LIT_BACKDOOR_CACHE", str(tmp_path / "cache"))
    for part, base in (("train", 10), ("test", 50)):
        for number, name in enumerate(("cat", "dog")):
            save(tmp_path / part / name / "0.png", base + number)
    save(tmp_path / "train" / "dog" / "deeper" / "1.png", 19)
    (tmp_path / "train" / "dog" / "notes.txt").write_text("not an image")
    return tmp_path


def source(folder, **options):
    return ImageFolderSource(str(folder / "train"), str(folder / "test"), **options)


@pytest.mark.parametrize("in_memory", [False, True])
def test_rows_follow_the_sorted_class_folders(folder, in_memory):
    opened = source(folder, in_memory=in_memory)
    rows = opened.train()
    assert opened.class_names == ("cat", "dog")
    assert rows.in_memory is in_memory
    assert rows.labels.tolist() == [0, 1, 1]
    assert rows.images(torch.tensor([2, 0]))[:, 0, 0, 0].tolist() == [19, 10]
    assert opened.image_size == (4, 6)
    assert opened.test().images(torch.tensor([1])).shape == (1, 3, 4, 6)


def test_images_are_resized(folder):
    save(folder / "train" / "cat" / "1.png", 12, size=(9, 9))
    assert source(folder, size=5).train().images(torch.arange(4)).shape == (4, 3, 5, 5)
    assert source(folder, size=(3, 7)).train().images(torch.arange(4)).shape == (4, 3, 3, 7)


def test_images_of_different_sizes_need_a_size(folder):
    save(folder / "train" / "dog" / "1.png", 12, size=(9, 9))
    with pytest.raises(ValueError, match=r"1\.png'.*9x9.*Give a `size`"):
        source(folder).train().images(torch.arange(4))


@pytest.mark.parametrize("content", [b"", b"nonsense"])
def test_a_broken_image_is_named(folder, content):
    (folder / "train" / "dog" / "0.png").write_bytes(content)
    with pytest.raises(ValueError, match=r"dog.0\.png': not a readable image"):
        source(folder).train().images(torch.arange(3))


def test_a_broken_first_image_is_named(folder):
    (folder / "train" / "cat" / "0.png").write_bytes(b"")
    with pytest.raises(ValueError, match=r"cat.0\.png': not a readable image"):
        _ = source(folder).image_size


def test_a_first_image_beyond_any_memory_is_named(folder):
    Image.new("1", (14_000, 14_000)).save(folder / "train" / "cat" / "0.png")
    with pytest.raises(ValueError, match=r"cat.0\.png': not a readable image .*exceeds limit"):
        _ = source(folder).image_size


def test_an_image_of_floats_is_refused_instead_of_read_as_black(folder):
    Image.fromarray(np.full((6, 6), 0.5, np.float32)).save(folder / "train" / "cat" / "0.tif")
    with pytest.raises(ValueError, match=r"cat.0\.tif': not a readable image \(its pixels are floats"):
        source(folder).train().images(torch.arange(3))


@pytest.mark.parametrize("size", [8.5, True, "8", (8,), (8, 0)])
def test_a_size_that_is_none_is_refused(folder, size):
    with pytest.raises(ValueError, match="Expected size as a number of pixels"):
        source(folder, size=size)


def test_the_fingerprint_follows_pixels_that_leave_the_file_s_size_as_it_was(folder):
    Image.fromarray(np.full((6, 6, 3), 9, np.uint8)).save(folder / "train" / "cat" / "0.bmp")
    before = source(folder).fingerprint()
    Image.fromarray(np.full((6, 6, 3), 200, np.uint8)).save(folder / "train" / "cat" / "0.bmp")
    assert source(folder).fingerprint() != before


def test_the_fingerprint_follows_names_and_sizes(folder):
    before = source(folder).fingerprint()
    assert source(folder).fingerprint() == before
    assert source(folder, size=5).fingerprint() != before
    save(folder / "test" / "dog" / "1.png", 3)
    assert source(folder).fingerprint() != before


def test_an_unknown_test_class_is_refused(folder):
    save(folder / "test" / "frog" / "0.png", 1)
    with pytest.raises(ValueError, match="'frog'"):
        source(folder).test()


def test_folders_without_classes_or_images_are_refused(folder, tmp_path):
    (tmp_path / "empty" / "cat").mkdir(parents=True)
    with pytest.raises(ValueError, match="one folder per class"):
        ImageFolderSource(str(tmp_path / "empty" / "cat"), "x").train()
    with pytest.raises(ValueError, match="no images"):
        ImageFolderSource(str(tmp_path / "empty"), "x").train()


def test_a_missing_folder_names_the_data_folder(folder):
    with pytest.raises(FileNotFoundError, match="LIT_BACKDOOR_DATA"):
        ImageFolderSource("missing", "missing").train()


def test_unlabeled_images_have_the_label_minus_one(folder):
    opened = UnlabeledFolder(str(folder / "train"), size=4)
    rows = opened.train()
    assert rows.labels.tolist() == [-1, -1, -1]
    assert rows.images(torch.arange(3)).shape == (3, 3, 4, 4)
    assert opened.class_names == ()
    assert opened.fingerprint() != UnlabeledFolder(str(folder / "train"), size=5).fingerprint()


def test_unlabeled_images_make_no_test_part(folder):
    with pytest.raises(ValueError, match="no test part"):
        UnlabeledFolder(str(folder / "train")).test()


def write_mnist(root):
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part, count in (("train", 3), ("t10k", 2)):
        pixels = np.arange(count * 28 * 28, dtype=np.uint32).astype(np.uint8)
        head = struct.pack(">iiii", 2051, count, 28, 28)
        (raw / f"{part}-images-idx3-ubyte").write_bytes(head + pixels.tobytes())
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">ii", 2049, count) + bytes(range(count)))
        for kind in ("images-idx3", "labels-idx1"):
            (raw / f"{part}-{kind}-ubyte.gz").write_bytes(gzip.compress((raw / f"{part}-{kind}-ubyte").read_bytes()))


def test_torchvision_data_sets_become_rgb(tmp_path):
    write_mnist(tmp_path)
    opened = TorchvisionSource("MNIST", root=str(tmp_path))
    rows = opened.train()
    images = rows.images(torch.arange(3))
    assert images.shape == (3, 3, 28, 28)
    assert images[1, :, 0, 5].tolist() == [(28 * 28 + 5) % 256] * 3
    assert rows.labels.tolist() == [0, 1, 2]
    assert opened.num_classes == 10
    assert opened.image_size == (28, 28)
    assert len(opened.test()) == 2


def test_torchvision_data_sets_are_resized_and_fingerprinted(tmp_path):
    write_mnist(tmp_path)
    opened = TorchvisionSource("MNIST", root=str(tmp_path), size=32)
    assert opened.image_size == (32, 32)
    assert opened.fingerprint() == TorchvisionSource("MNIST", root=str(tmp_path), size=32).fingerprint()
    assert opened.fingerprint() != TorchvisionSource("MNIST", root=str(tmp_path)).fingerprint()


def test_an_unknown_torchvision_name_gets_the_nearest_one():
    with pytest.raises(ValueError, match="Did you mean 'CIFAR100'"):
        TorchvisionSource("CIFAR1000")


def test_a_missing_torchvision_copy_says_where_it_looked(tmp_path):
    with pytest.raises(FileNotFoundError, match=str(tmp_path)):
        TorchvisionSource("CIFAR100", root=str(tmp_path)).train()


def test_hidden_folders_are_no_classes_and_empty_ones_are_refused(folder):
    (folder / "train" / ".ipynb_checkpoints").mkdir()
    (folder / "test" / ".ipynb_checkpoints").mkdir()
    assert source(folder).train().labels.tolist() == [0, 1, 1]
    (folder / "train" / "ant").mkdir()
    with pytest.raises(ValueError, match="ant' has no images, so nothing says what the class is"):
        source(folder).train()


def test_a_file_in_the_place_of_the_folder_is_named(folder):
    (folder / "plain").write_text("")
    with pytest.raises(ValueError, match="Expected a folder of class folders at '.*plain', got a file"):
        ImageFolderSource(str(folder / "plain"), str(folder / "test")).train()


def test_decoded_rows_are_pillow_s_pixels_with_and_without_workers(tmp_path):
    noise = np.random.default_rng(0)
    for row in range(20):
        path = tmp_path / f"class {row % 2}" / f"{row:02}.jpg"
        path.parent.mkdir(exist_ok=True)
        small = Image.fromarray(noise.integers(0, 256, (6, 7, 3), dtype=np.uint8))
        small.resize((50, 40), Image.Resampling.BICUBIC).save(path, quality=80)
    files = sorted(tmp_path.rglob("*.jpg"))
    for size in (None, 24):
        source = ImageFolderSource(str(tmp_path), str(tmp_path), size)
        want = [np.asarray(Image.open(path) if size is None else
                           Image.open(path).resize((size, size), Image.Resampling.BILINEAR)) for path in files]  # fmt: skip
        assert np.array_equal(source.train().images(torch.arange(20)).permute(0, 2, 3, 1).numpy(), np.stack(want))
        data = BackdoorDataModule(source, Split(root_pool=2), num_workers=2, eval_batch_size=7)
        for batch in data.loader("clean"):
            got = batch["image"].permute(0, 2, 3, 1).numpy()
            assert np.array_equal(got, np.stack([want[row] for row in batch["index"].tolist()]))


@pytest.mark.parametrize("workers", [0, 2])
def test_image_that_vanishes_is_named_in_one_line(tmp_path, workers):
    for row in range(20):
        path = tmp_path / f"class {row % 2}" / f"{row:02}.png"
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (8, 8)).save(path)
    data = BackdoorDataModule(ImageFolderSource(str(tmp_path), str(tmp_path)), Split(root_pool=2), num_workers=workers)
    loader = data.loader("clean")
    path.unlink()
    with pytest.raises(ValueError, match=r"^'.*19.png': the file is gone[^\n]*$"):
        list(loader)
