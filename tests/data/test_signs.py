import pytest
import torch

from lit_backdoor.data.sources import SyntheticSigns
from lit_backdoor.data.sources import signs as signs_module
from lit_backdoor.data.sources.base import digest
from lit_backdoor.data.sources.sign_scenes import CHUNK
from lit_backdoor.data.sources.sign_shapes import SIGN_NAMES, sign_faces


def small(**changes):
    return SyntheticSigns(**{"num_classes": 4, "train_per_class": 6, "test_per_class": 3, **changes})


def test_parts_are_balanced_and_shuffled():
    signs = small()
    train, test = signs.train(), signs.test()
    assert train.labels.dtype == torch.int64
    assert train.labels.bincount().tolist() == [6] * 4
    assert test.labels.bincount().tolist() == [3] * 4
    assert train.labels.tolist() != sorted(train.labels.tolist())


def test_images_are_uint8_of_the_given_size():
    signs = small(size=40)
    images = signs.train().images(torch.tensor([3, 0]))
    assert images.dtype == torch.uint8
    assert images.shape == (2, 3, 40, 40)
    assert signs.image_size == (40, 40)


def test_the_same_seed_gives_the_same_pixels_on_every_machine():
    pixels = small().train().images(torch.arange(24))
    assert digest(pixels) == "dc8acd86c1d23a382ab5a0dab146f074"


def test_another_seed_gives_other_pixels_and_another_fingerprint():
    one, other = small(seed=1), small(seed=2)
    index = torch.arange(24)
    assert not torch.equal(one.train().images(index), other.train().images(index))
    assert one.fingerprint() != other.fingerprint()
    assert one.fingerprint() == small(seed=1).fingerprint()


def test_train_and_test_are_independent_draws():
    signs = SyntheticSigns(num_classes=2, train_per_class=5, test_per_class=5)
    index = torch.arange(10)
    train, test = signs.train().images(index).float(), signs.test().images(index).float()
    assert ((train[:, None] - test[None]).abs().mean((2, 3, 4)) > 5).all()


def test_test_rows_do_not_depend_on_the_number_of_training_rows():
    index = torch.arange(12)
    assert torch.equal(small().test().images(index), small(train_per_class=9).test().images(index))


def test_more_rows_than_a_chunk():
    signs = SyntheticSigns(num_classes=2, train_per_class=CHUNK, test_per_class=1, size=8)
    images = signs.train().images(torch.arange(2 * CHUNK)).float()
    assert images.flatten(1).std(1).min() > 1
    assert images.flatten(1).unique(dim=0).shape[0] == 2 * CHUNK


def test_signs_share_shapes_and_colors_and_differ_by_glyph():
    faces = torch.from_numpy(sign_faces(len(SIGN_NAMES))).int()
    shapes = [tuple(face[..., 3].flatten().tolist()) for face in faces[:16]]
    shared = sum(shapes.count(shape) > 1 for shape in shapes)
    assert shared >= 12
    assert faces.flatten(1).unique(dim=0).shape[0] == len(SIGN_NAMES)


def test_no_sign_is_the_mirror_image_of_another():
    faces = torch.from_numpy(sign_faces(len(SIGN_NAMES))).float()
    distance = torch.stack([(faces - face.flip(1)).abs().mean((1, 2, 3)) for face in faces])
    distance.fill_diagonal_(torch.inf)
    assert distance.min() > 1


def test_43_classes_begin_with_the_first_ones():
    assert len(SIGN_NAMES) == len(set(SIGN_NAMES)) == 43
    assert digest(torch.from_numpy(sign_faces(43)[:20])) == digest(torch.from_numpy(sign_faces(20)))
    assert small(num_classes=43, train_per_class=1).train().labels.unique().numel() == 43


def test_parts_are_drawn_once():
    signs = small()
    assert signs.train() is signs.train()


@pytest.mark.parametrize(
    "changes",
    [
        {"num_classes": 1},
        {"num_classes": 44},
        {"train_per_class": 0},
        {"size": 4},
        {"seed": -1},
        {"train_per_class": 10**9},
        {"size": 10**6},
    ],
)
def test_arguments_out_of_range_are_refused(changes):
    with pytest.raises(ValueError, match="Expected"):
        small(**changes)


def test_drawn_parts_are_kept_in_the_cache_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("LIT_BACKDOOR_CACHE", str(tmp_path))
    options = {"num_classes": 2, "train_per_class": CHUNK, "size": 8}
    drawn = small(**options).train()
    [file] = (tmp_path / "pixels").iterdir()
    monkeypatch.setattr(signs_module, "photograph", lambda *_: pytest.fail("drawn again"))
    kept, index = small(**options).train(), torch.arange(2 * CHUNK)
    assert torch.equal(kept.images(index), drawn.images(index))
    assert torch.equal(kept.labels, drawn.labels)
    monkeypatch.undo()
    monkeypatch.setenv("LIT_BACKDOOR_CACHE", str(tmp_path))
    file.write_bytes(file.read_bytes()[:500])  # as a full disk leaves it: drawn again
    assert torch.equal(small(**options).train().images(index), drawn.images(index))
