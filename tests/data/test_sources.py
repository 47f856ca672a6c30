import pytest
import torch

from lit_backdoor.data.sources import TensorRows, TensorSource
from lit_backdoor.data.sources.base import check_labels, size_pair


def images(count, size=4, seed=0):
    return torch.randint(0, 256, (count, 3, size, size), generator=torch.Generator().manual_seed(seed)).to(torch.uint8)


def source(**changes):
    parts = {"train": (images(5), torch.tensor([0, 1, 2, 1, 0])), "test": (images(2), torch.tensor([2, 0]))}
    return TensorSource(**{**parts, **changes})


def test_rows_are_looked_up_by_index():
    rows = source().train()
    assert len(rows) == 5
    assert torch.equal(rows.images(torch.tensor([4, 0])), images(5)[[4, 0]])
    assert rows.labels.dtype == torch.int64
    assert rows.in_memory


def test_class_names_are_numbers_unless_given():
    assert source().class_names == ("0", "1", "2")
    assert source(class_names=["a", "b", "c", "d"]).num_classes == 4


def test_int32_labels_become_int64():
    parts = (images(2), torch.tensor([1, 0], dtype=torch.int32))
    assert TensorSource(parts, parts).test().labels.dtype == torch.int64


def test_numpy_arrays_are_taken_as_tensors():
    arrays = TensorSource(*((images(5).numpy(), torch.arange(5).numpy()) for _ in range(2)))
    tensors = TensorSource(*((images(5), torch.arange(5)) for _ in range(2)))
    assert arrays.fingerprint() == tensors.fingerprint()


@pytest.mark.parametrize(
    "changes",
    [
        {"train": (images(5, seed=1), torch.tensor([0, 1, 2, 1, 0]))},
        {"train": (images(5), torch.tensor([0, 1, 2, 1, 1]))},
        {"test": (images(2), torch.tensor([2, 1]))},
        {"class_names": ["a", "b", "c"]},
    ],
)
def test_the_fingerprint_follows_the_content(changes):
    assert source().fingerprint() == source().fingerprint()
    assert source(**changes).fingerprint() != source().fingerprint()


@pytest.mark.parametrize("pixels", [images(2).float(), images(2)[:, :1], images(2)[0]])
def test_images_of_another_type_or_shape_are_refused(pixels):
    with pytest.raises(ValueError, match="uint8"):
        TensorRows(pixels, torch.tensor([0, 1]))


def test_as_many_labels_as_images():
    with pytest.raises(ValueError, match=r"labels of shape \[2\]"):
        TensorRows(images(2), torch.tensor([0]))


def test_columns_have_a_value_per_row():
    with pytest.raises(ValueError, match="glasses"):
        TensorRows(images(2), torch.tensor([0, 1]), {"glasses": torch.tensor([True])})


def test_test_images_of_another_size_are_refused():
    with pytest.raises(ValueError, match=r"4x4.*5x5"):
        source(test=(images(2, size=5), torch.tensor([0, 1])))


@pytest.mark.parametrize("label", [-1, 3])
def test_labels_out_of_range_are_named_with_their_row(label):
    with pytest.raises(ValueError, match=f"here, row 1: label {label}"):
        check_labels(torch.tensor([0, label]), 3, "here")


@pytest.mark.parametrize("labels", [torch.tensor([0.5]), torch.tensor([True]), torch.tensor([[1]])])
def test_labels_that_are_no_integers_are_refused(labels):
    with pytest.raises(ValueError, match="integer labels"):
        check_labels(labels, 3, "here")


def test_sizes_are_a_side_or_a_pair():
    assert size_pair(5) == (5, 5)
    assert size_pair([4, 6]) == (4, 6)


@pytest.mark.parametrize("size", [0, [1, 2, 3], (4, -1), 4097, 10**9, 32.0, True])
def test_impossible_sizes_are_refused(size):
    with pytest.raises(ValueError, match="Expected size"):
        size_pair(size)
