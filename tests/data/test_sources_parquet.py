import io
import json
import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from lit_backdoor.data.sources import Cifar10, ParquetSource, TinyImageNet, files


def png(value, size=4):
    data = io.BytesIO()
    Image.fromarray(np.full((size, size, 3), value, np.uint8)).save(data, "PNG")
    return data.getvalue()


def write(path, images=None, labels=(0, 1, 2), metadata=None, **columns):
    images = [png(10 * (row + 1)) for row in range(3)] if images is None else images
    table = pa.table({"image": images, "label": labels, **columns})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table.replace_schema_metadata(metadata), path)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.delenv("LIT_BACKDOOR_DATA", raising=False)
    monkeypatch.setenv("LIT_BACKDOOR_CACHE", str(tmp_path / "cache"))
    write(tmp_path / "train.parquet")
    write(tmp_path / "test.parquet", labels=[2, 1, 0])
    return tmp_path


def source(folder, **options):
    return ParquetSource(str(folder / "train.parquet"), str(folder / "test.parquet"), **options)


def test_rows_are_decoded(folder):
    opened = source(folder)
    assert opened.image_size == (4, 4)
    assert opened.train().images(torch.tensor([2, 0]))[:, :, 1, 1].tolist() == [[30] * 3, [10] * 3]
    assert opened.test().labels.tolist() == [2, 1, 0]


def test_images_may_be_structs_of_bytes_and_path(folder):
    write(folder / "train.parquet", images=[{"bytes": png(9 + row), "path": "x.png"} for row in range(3)])
    opened = source(folder)
    assert opened.image_size == (4, 4)
    assert opened.train().images(torch.arange(3))[:, 0, 0, 0].tolist() == [9, 10, 11]


def test_whole_numbers_and_truth_values_become_columns(folder):
    write(
        folder / "train.parquet",
        glasses=[0, 1, 1],
        smiles=[True, False, True],
        person=["a", "b", "c"],
        age=[1, None, 2],
    )
    columns = source(folder).train().columns
    assert set(columns) == {"glasses", "smiles"}
    assert columns["glasses"].tolist() == [0, 1, 1]
    assert columns["smiles"].dtype == torch.bool


def test_columns_may_have_other_names(folder):
    for part in ("train", "test"):
        table = pq.read_table(folder / f"{part}.parquet").rename_columns(["img", "fine_label"])
        pq.write_table(table, folder / f"{part}.parquet")
    assert len(source(folder, image_column="img", label_column="fine_label").train()) == 3


def test_class_names_come_from_the_metadata(folder):
    assert source(folder).class_names == ("0", "1", "2")
    write(folder / "train.parquet", metadata={"class_names": "cat,dog,frog"})
    assert source(folder).class_names == ("cat", "dog", "frog")
    features = {"info": {"features": {"label": {"names": ["x", "y", "z"], "_type": "ClassLabel"}}}}
    write(folder / "train.parquet", metadata={"huggingface": json.dumps(features)})
    assert source(folder).class_names == ("x", "y", "z")
    assert source(folder, class_names=["a", "b", "c"]).class_names == ("a", "b", "c")


def test_classes_of_one_name_in_the_metadata_are_refused(folder):
    write(folder / "train.parquet", metadata={"class_names": "cat,dog,cat"})
    with pytest.raises(ValueError, match="each once, got 'cat' twice"):
        source(folder).train()


@pytest.mark.parametrize(
    "metadata",
    ["no JSON", "[]", '{"info": null}', '{"info": {"features": {"label": null}}}',
     '{"info": {"features": {"label": {"names": "abc"}}}}'],
)  # fmt: skip
def test_metadata_of_another_form_name_no_classes(folder, metadata):
    write(folder / "train.parquet", metadata={"huggingface": metadata})
    assert source(folder).class_names == ("0", "1", "2")


def test_labels_that_count_no_classes_are_refused(folder):
    write(folder / "train.parquet", labels=[0, 1, 3_000_000_000])
    with pytest.raises(ValueError, match="labels that count classes from 0 on, got 3000000000 as the largest"):
        source(folder).train()


def test_images_are_resized(folder):
    write(folder / "train.parquet", images=[png(1), png(2, size=7), png(3)])
    assert source(folder, size=5).train().images(torch.arange(3)).shape == (3, 3, 5, 5)
    with pytest.raises(ValueError, match=r"row 1: the image is 7x7.*Give a `size`"):
        source(folder).train()


def test_images_are_cut_to_the_shape_of_the_size(folder):
    wide = io.BytesIO()
    image = Image.new("RGB", (6, 2), "black")
    image.paste("white", (2, 0, 4, 2))
    image.save(wide, "PNG")
    write(folder / "train.parquet", images=[wide.getvalue()] * 3)
    assert source(folder, size=2, crop=True).train().images(torch.arange(3)).eq(255).all()
    assert not source(folder, size=2).train().images(torch.arange(3)).eq(255).all()
    assert source(folder, size=2, crop=True).fingerprint() != source(folder, size=2).fingerprint()


def test_parts_of_different_sizes_need_a_size(folder):
    write(folder / "test.parquet", images=[png(1, size=7)] * 3)
    with pytest.raises(ValueError, match=r"7x7.*Give a `size`"):
        source(folder).test()


def test_the_training_part_never_opens_the_test_part(folder):
    (folder / "test.parquet").write_bytes(b"")
    assert len(source(folder).train()) == 3


def test_the_fingerprint_follows_the_content(folder):
    before = source(folder).fingerprint()
    assert source(folder).fingerprint() == before
    assert source(folder, size=8).fingerprint() != before
    write(folder / "test.parquet", labels=[2, 1, 1])
    assert source(folder).fingerprint() != before


def test_decoded_pixels_come_from_the_cache_only_for_the_same_content(folder, monkeypatch):
    monkeypatch.setattr(files, "CACHE_FROM", 1)
    for _ in range(2):
        assert source(folder).train().images(torch.tensor([0]))[0, 0, 0, 0] == 10
    write(folder / "train.parquet", images=[png(99)] * 3)
    assert source(folder).train().images(torch.tensor([0]))[0, 0, 0, 0] == 99


@pytest.mark.parametrize("broken", [b"", b"no image", None])
def test_a_broken_image_is_named_with_file_and_row(folder, broken):
    write(folder / "train.parquet", images=[png(1), broken, png(2)])
    with pytest.raises(ValueError, match=r"train\.parquet', row 1"):
        source(folder).train()


@pytest.mark.parametrize("content", [b"", b"nonsense", "half"])
def test_a_broken_file_is_named(folder, content):
    path = folder / "train.parquet"
    path.write_bytes(path.read_bytes()[:300] if content == "half" else content)
    with pytest.raises(ValueError, match=r"train\.parquet' .*not a readable parquet file"):
        source(folder).train()


def test_damage_inside_a_file_is_named(folder):
    path = folder / "train.parquet"
    content = bytearray(path.read_bytes())
    content[4:200] = b"\xff" * 196
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"train\.parquet'"):
        source(folder).train()


@pytest.mark.parametrize("label", [-1, 3])
def test_labels_out_of_range_are_named_with_file_and_row(folder, label):
    write(folder / "test.parquet", labels=[0, 1, label])
    with pytest.raises(ValueError, match=rf"test\.parquet', row 2: label {label}"):
        source(folder).test()


@pytest.mark.parametrize(("labels", "said"), [([0.0, 1.0, 2.0], "whole numbers"), ([0, None, 1], "row 1: .*empty")])
def test_labels_must_be_whole_numbers(folder, labels, said):
    write(folder / "train.parquet", labels=labels)
    with pytest.raises(ValueError, match=said):
        source(folder).train()


@pytest.mark.parametrize("column", ["image", "label"])
def test_missing_columns_are_named(folder, column):
    pq.write_table(pq.read_table(folder / "train.parquet").drop_columns([column]), folder / "train.parquet")
    with pytest.raises(ValueError, match=f"no column '{column}'"):
        source(folder).train()


def test_images_that_are_not_encoded_are_refused(folder):
    write(folder / "train.parquet", images=[1, 2, 3])
    with pytest.raises(ValueError, match="expected encoded images"):
        source(folder).train()


def test_a_file_without_rows_is_refused(folder):
    write(folder / "train.parquet", images=pa.array([], pa.binary()), labels=pa.array([], pa.int64()))
    with pytest.raises(ValueError, match="no rows"):
        source(folder).train()


def test_missing_files_say_where_they_were_looked_for(folder):
    with pytest.raises(FileNotFoundError, match=r"missing\.parquet.*LIT_BACKDOOR_DATA"):
        ParquetSource(str(folder / "missing.parquet"), "test.parquet").train()


def test_cifar10_is_found_below_the_data_folder(folder, monkeypatch):
    names = "airplane,automobile,bird"
    write(folder / "cifar10" / "train.parquet", metadata={"class_names": names})
    write(folder / "cifar10" / "test.parquet")
    monkeypatch.setenv("LIT_BACKDOOR_DATA", str(folder))
    opened = Cifar10()
    opened.prepare()
    assert opened.class_names == tuple(names.split(","))
    assert len(opened.train()) == len(opened.test()) == 3
    assert opened.fingerprint() == Cifar10(root=str(folder)).fingerprint()


def test_cifar10_that_is_nowhere_names_the_data_folder(folder):
    with pytest.raises(FileNotFoundError, match=r"CIFAR10.*LIT_BACKDOOR_DATA"):
        Cifar10(root=str(folder)).train()


def test_tiny_imagenet_has_readable_names(folder):
    place = folder / "tiny-imagenet-50"
    write(place / "train.parquet")
    write(place / "val.parquet")
    (place / "classes.csv").write_text('label,wnid,words\n0,n1,"goldfish, Carassius"\n1,n2,crane\n2,n3,"crane, bird"\n')
    opened = TinyImageNet(root=str(folder))
    assert opened.class_names == ("goldfish", "n2", "n3")
    assert len(opened.test()) == 3


@pytest.mark.parametrize("text", ["a,b\n1,2\n", "label,wnid,words\nx,n1,crane\n", "label,wnid,words\n0\n"])
def test_names_of_tiny_imagenet_in_another_form_are_refused(folder, text):
    place = folder / "tiny-imagenet-50"
    write(place / "train.parquet")
    write(place / "val.parquet")
    (place / "classes.csv").write_text(text)
    with pytest.raises(ValueError, match="columns label, wnid and words at .*classes.csv"):
        TinyImageNet(root=str(folder)).train()


def test_tiny_imagenet_is_read_from_the_extracted_archive(folder):
    place = folder / "tiny-imagenet-200"
    for wnid, value in (("n2", 20), ("n1", 10)):
        (place / "train" / wnid / "images").mkdir(parents=True)
        (place / "train" / wnid / "images" / f"{wnid}_0.png").write_bytes(png(value))
    (place / "val" / "images").mkdir(parents=True)
    (place / "val" / "images" / "val_0.png").write_bytes(png(30))
    (place / "val" / "val_annotations.txt").write_text("val_0.png\tn2\t0\t0\t1\t1\n")
    (place / "wnids.txt").write_text("n2\nn1\n")
    (place / "words.txt").write_text("n1\tgoldfish, Carassius\nn2\tkoala\n")
    opened = TinyImageNet(root=str(folder))
    assert opened.class_names == ("goldfish", "koala")
    assert opened.train().labels.tolist() == [0, 1]
    assert opened.train().images(torch.arange(2))[:, 0, 0, 0].tolist() == [10, 20]
    assert opened.test().labels.tolist() == [1]


def test_tiny_imagenet_that_is_nowhere_names_the_data_folder(folder):
    with pytest.raises(FileNotFoundError, match=r"Tiny ImageNet.*LIT_BACKDOOR_DATA"):
        TinyImageNet(root=str(folder)).train()


real = pytest.mark.skipif("LIT_BACKDOOR_DATA" not in os.environ, reason="LIT_BACKDOOR_DATA is not set")


@real
@pytest.mark.real
def test_real_cifar10():
    rows = Cifar10().test()
    assert rows.labels.bincount().tolist() == [1000] * 10
    mean = rows.images(torch.arange(len(rows))).double().mean((0, 2, 3)) / 255
    assert torch.allclose(mean, torch.tensor([0.4941, 0.4851, 0.4504], dtype=torch.float64), atol=1e-4)


@real
@pytest.mark.real
def test_real_tiny_imagenet():
    opened = TinyImageNet()
    rows = opened.test()
    assert opened.class_names[:2] == ("goldfish", "American alligator")
    assert rows.labels.bincount().tolist() == [50] * 50
    mean = rows.images(torch.arange(len(rows))).double().mean((0, 2, 3)) / 255
    assert torch.allclose(mean, torch.tensor([0.4826, 0.4535, 0.4004], dtype=torch.float64), atol=1e-4)


@real
@pytest.mark.real
def test_real_faces_are_grey_and_have_columns():
    rows = ParquetSource("cmu-faces/train.parquet", "cmu-faces/test.parquet").train()
    images = rows.images(torch.arange(8))
    assert images.shape == (8, 3, 60, 64)
    assert torch.equal(images[:, 0], images[:, 1])
    assert set(rows.columns["sunglasses"].tolist()) == {0, 1}


def test_damaged_page_names_file_and_place(folder):
    path = folder / "train.parquet"
    images = [png(row % 250) for row in range(900)]
    pq.write_table(
        pa.table({"image": images, "label": [row % 3 for row in range(900)]}),
        path, row_group_size=300, compression="zstd",
    )  # fmt: skip
    chunk = pq.ParquetFile(path).metadata.row_group(1).column(0)
    content = bytearray(path.read_bytes())
    start = chunk.dictionary_page_offset or chunk.data_page_offset
    content[start : start + 40] = b"\xff" * 40
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"train\.parquet' is damaged, at row (256|300) or after it"):
        source(folder).train()
