import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tiny
import torch
from audit_parts import NAMES, OUTPUTS, classes_file, image_folder
from PIL import Image

from lit_backdoor.audit.images import open_images, read_outputs
from lit_backdoor.data import TensorSource
from lit_backdoor.data.sources import ParquetSource


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return image_folder(tmp_path_factory.mktemp("images") / "mine")


def labels_of(images):
    return [images.names[label] for label in images.labels.tolist()]


def test_folders_stand_for_the_outputs_that_are_said(folder):
    images = open_images(folder, OUTPUTS, 4)
    assert labels_of(images) == [name for name in NAMES for _ in range(8)]
    assert images.names == ("top", "upper", "lower", "bottom")
    assert images.notes == ()


def test_folders_in_their_order_are_a_guess_that_is_said(folder):
    images = open_images(folder, {}, 4)
    assert images.names == NAMES
    assert "Guessed that the outputs stand for the classes in their order: bottom, lower, top" in images.notes[0]


def test_numbers_are_outputs(tmp_path):
    for name, to in zip(NAMES, ("0", "02", "7", "9"), strict=True):
        image_folder(tmp_path / "all", names=(name,))
        (tmp_path / "all" / name).rename(tmp_path / "all" / to)
    images = open_images(tmp_path / "all", {}, 10)
    assert sorted(set(images.labels.tolist())) == [0, 2, 7, 9]
    assert images.names[3] == "output 3"
    assert "6 of 10 classes have fewer than 2 images" in images.notes[0]


@pytest.mark.parametrize(
    ("outputs", "count", "says"),
    [
        ({}, 10, "which of the model's 10 outputs stand for the 4 classes of the images, such as 'bottom'"),
        ({}, 3, "at most the model's 3 classes, got 4"),
        ({"a": 0, "b": 1}, 2, "'bottom'. Known: a, b"),
        ({"bottom": 0, "lower": 1, "topp": 2, "upper": 3}, 4, "'top'. Did you mean 'topp'"),
        ({**OUTPUTS, "top": 9}, 4, "outputs from 0 to 3, got 9 for 'top'"),
    ],
)
def test_unclear_outputs_are_asked_for(folder, outputs, count, says):
    with pytest.raises(ValueError, match=says):
        open_images(folder, outputs, count)


@pytest.mark.parametrize(("each", "names"), [(1, NAMES), (30, ("top",))], ids=["four images", "one class"])
def test_too_few_images_are_refused(tmp_path, each, names):
    with pytest.raises(ValueError, match="Expected at least 20 images, and 2 in each of two or more classes"):
        open_images(image_folder(tmp_path / "few", each, names), OUTPUTS, 4)


def test_unreadable_image_is_named(tmp_path):
    path = image_folder(tmp_path / "mine")
    (tmp_path / "mine" / "top" / "3.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"3\.png': not a readable image"):
        open_images(path, OUTPUTS, 4).pixels(tiny.SIZE)


def test_images_are_cut_to_squares_and_resized(tmp_path):
    path = image_folder(tmp_path / "mine")
    wide = Image.new("RGB", (60, 20), "black")
    wide.paste("white", (20, 0, 40, 20))  # the middle third
    for file in (tmp_path / "mine" / "top").glob("*.png"):
        wide.save(file)
    images = open_images(path, OUTPUTS, 4)
    pixels = images.pixels(10)
    assert pixels.shape == (32, 3, 10, 10)
    assert (pixels[images.labels == 0][..., 1:-1] == 255).all()


def test_test_part_of_a_folder_with_both_is_taken(tmp_path):
    image_folder(tmp_path / "both" / "train", 9)
    image_folder(tmp_path / "both" / "test", 7)
    assert len(open_images(tmp_path / "both", OUTPUTS, 4).labels) == 28


def test_parquet_table_and_yaml_give_what_the_folder_gives(folder, tmp_path):
    images = open_images(folder, OUTPUTS, 4)
    pixels = images.pixels(tiny.SIZE)
    images.save(pixels, tmp_path / "images.parquet")
    file = str(tmp_path / "images.parquet")
    source = {"class_path": "lit_backdoor.data.sources.ParquetSource", "init_args": {"train": file, "test": file}}
    rows = [f"{folder}/{name}/{number}.png,{name}" for name in NAMES for number in range(8)]
    (tmp_path / "rows.csv").write_text("\n".join(["file,class", *rows]))
    (tmp_path / "source.yaml").write_text(f"class_path: {source['class_path']}\ninit_args: {source['init_args']}\n")
    for data, outputs in (
        (file, {}),
        (tmp_path, {}),
        (tmp_path / "rows.csv", OUTPUTS),
        (tmp_path / "source.yaml", {}),
        (source, {}),
        (ParquetSource(file, file), {}),
    ):
        again = open_images(data, outputs, 4)
        assert torch.equal(again.labels, images.labels), data
        assert torch.equal(again.pixels(tiny.SIZE), pixels), data


def test_many_images_are_thinned_by_class():
    labels = torch.arange(1500) % 3
    part = (torch.zeros(1500, 3, 4, 4, dtype=torch.uint8), labels)
    images = open_images(TensorSource(part, part), {}, 3)
    assert images.labels.bincount().tolist() in ([333, 333, 334], [333, 334, 333], [334, 333, 333])
    assert "1,000 of the 1,500 images were taken" in images.notes[0]


def test_other_files_are_refused(tmp_path):
    (tmp_path / "x.txt").write_text("x")
    (tmp_path / "x.yaml").write_text("a: 1")
    with pytest.raises(ValueError, match="Expected a folder of class folders, a parquet file"):
        open_images(tmp_path / "x.txt", {}, 4)
    with pytest.raises(ValueError, match="to name a source: class_path"):
        open_images(tmp_path / "x.yaml", {}, 4)
    with pytest.raises(FileNotFoundError, match="nowhere', found none"):
        open_images(tmp_path / "nowhere", {}, 4)


def test_outputs_are_read_from_lines_and_json(tmp_path):
    (tmp_path / "names.txt").write_text("a\nb\n")
    (tmp_path / "list.json").write_text('["a", "b"]')
    for given in (str(tmp_path / "names.txt"), str(tmp_path / "list.json"), ["a", "b"]):
        assert read_outputs(given) == (2, {"a": 0, "b": 1})
    assert read_outputs(classes_file(tmp_path / "map.json")) == (None, OUTPUTS)
    assert read_outputs("7") == read_outputs(7) == (7, {})
    assert read_outputs(None) == (None, {})


@pytest.mark.parametrize("text", ["[1", "3", '{"a": -1}', '{"a": "b"}', "{}", '["a", "a"]'])
def test_outputs_of_another_form_are_refused(tmp_path, text):
    (tmp_path / "map.json").write_text(text)
    with pytest.raises(ValueError, match="Expected"):
        read_outputs(str(tmp_path / "map.json"))


@pytest.mark.parametrize("part", ["val", "valid", "validation"])
def test_validation_part_is_taken_where_there_is_no_test_part(tmp_path, part):
    image_folder(tmp_path / "both" / "train", 9)
    image_folder(tmp_path / "both" / part, 7)
    assert len(open_images(tmp_path / "both", OUTPUTS, 4).labels) == 28


def test_parquet_of_several_sizes_is_cut_to_squares_as_files_are(tmp_path):
    path = image_folder(tmp_path / "mine")
    for number, file in enumerate(sorted((tmp_path / "mine").rglob("*.png"))):
        Image.open(file).resize((20 + number, 24)).save(file)
    files = open_images(path, OUTPUTS, 4)
    encoded = [(tmp_path / "mine" / name / f"{n}.png").read_bytes() for name in NAMES for n in range(8)]
    pq.write_table(pa.table({"image": encoded, "label": files.labels.numpy()}), tmp_path / "sizes.parquet")
    rows = open_images(tmp_path / "sizes.parquet", {}, 4)
    assert torch.equal(rows.pixels(tiny.SIZE), files.pixels(tiny.SIZE))


def test_numbers_are_outputs_beside_their_names_too(tmp_path):
    for name, to in zip(("top", "upper", "lower", "bottom"), "0123", strict=True):
        image_folder(tmp_path / "all", names=(name,))
        (tmp_path / "all" / name).rename(tmp_path / "all" / to)
    images = open_images(tmp_path / "all", OUTPUTS, 4)
    assert images.labels.tolist() == [label for label in range(4) for _ in range(8)]
    assert images.names == ("top", "upper", "lower", "bottom")


def test_labels_beyond_the_outputs_are_refused(tmp_path):
    labels = torch.arange(40) % 9
    part = (torch.zeros(40, 3, 4, 4, dtype=torch.uint8), labels)
    with pytest.raises(ValueError, match="Expected labels from 0 to 3, the model's outputs, got up to 8"):
        open_images(TensorSource(part, part), OUTPUTS, 4)


def test_names_of_outputs_stay_in_the_file_of_images(folder, tmp_path):
    images = open_images(folder, {**OUTPUTS, "crane, bird": 4, "crane, machine": 5}, 6)
    images.save(images.pixels(8), tmp_path / "images.parquet")
    source = ParquetSource(str(tmp_path / "images.parquet"), str(tmp_path / "images.parquet"))
    assert source.class_names == images.names == ("top", "upper", "lower", "bottom", "crane, bird", "crane, machine")
    assert torch.equal(source.test().labels, images.labels)
