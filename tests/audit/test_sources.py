import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from audit_parts import image_folder
from PIL import Image

from lit_backdoor.audit.sources import check_apart, open_source


def encoded(value):
    file = io.BytesIO()
    Image.fromarray(np.full((6, 6, 3), value, np.uint8)).save(file, "PNG")
    return file.getvalue()


def write(path, **names):
    columns = {"image": [encoded(10), encoded(20)], "label": [0, 1]}
    pq.write_table(pa.table({names.get(name, name): values for name, values in columns.items()}), path)
    return path


@pytest.mark.parametrize("name", ["a.parquet", "test.parquet", "validation-0.parquet", "train-00000-of-00001.parquet"])
def test_parquet_of_any_part_is_opened_alone_and_in_its_folder(tmp_path, name):
    write(tmp_path / name)
    for data in (tmp_path, tmp_path / name):
        assert open_source(data, None).test().labels.tolist() == [0, 1]


def test_test_part_of_a_folder_of_parquet_files_is_taken(tmp_path):
    write(tmp_path / "train.parquet")
    pq.write_table(pa.table({"image": [encoded(30)] * 3, "label": [0, 1, 2]}), tmp_path / "test.parquet")
    assert len(open_source(tmp_path, None).test()) == 3


def test_columns_have_the_names_that_hubs_give_them(tmp_path):
    source = open_source(write(tmp_path / "a.parquet", image="img", label="fine_label"), 6)
    assert source.test().images(torch.tensor([1])).eq(20).all()
    with pytest.raises(ValueError, match=r"column label or .*, got image, kind\. .* --data x\.yaml: .*label_column"):
        open_source(write(tmp_path / "b.parquet", label="kind"), 6)


def test_table_with_tabs_is_a_table(tmp_path):
    folder = image_folder(tmp_path / "mine", 2)
    rows = [f"{folder}/{name}/{number}.png\t{name}" for name in ("top", "upper") for number in range(2)]
    (tmp_path / "rows.tsv").write_text("\n".join(["file\tclass", *rows]))
    assert open_source(tmp_path / "rows.tsv", 8).test().labels.tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("class_path: lit_backdoor.models.UNet", "subclass of Source"),
        ("class_path: os.system\ninit_args: {command: touch marker}", "subclass of Source"),
        ("class_path: lit_backdoor.data.ParquetSource\ninit_args: {trainn: x}", "trainn"),
        ("a: 1", "to name a source: class_path"),
        ("class_path: [a", "line 1"),
    ],
)
def test_file_that_names_no_source_is_refused(tmp_path, monkeypatch, content, says):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.yaml").write_text(content)
    with pytest.raises(ValueError, match=says):
        open_source(tmp_path / "x.yaml", None)
    assert not (tmp_path / "marker").exists()


def test_results_are_not_written_among_the_images(tmp_path):
    folder = image_folder(tmp_path / "mine", 1)
    for out in (f"{folder}/audit", f"{folder}/top/../audit", folder):
        with pytest.raises(ValueError, match="outside the folder of the images"):
            check_apart(Path(out), folder)
    check_apart(Path(f"{folder}2"), folder)
    check_apart(tmp_path / "audit", {"class_path": "x"})
