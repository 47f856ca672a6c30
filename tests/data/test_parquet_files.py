import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from lit_backdoor.data.sources import ParquetSource
from lit_backdoor.data.sources.parquet_files import find_shards

KIND = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def png(value=0):
    data = io.BytesIO()
    Image.new("L", (8, 8), value).save(data, "PNG")
    return data.getvalue()


def write(path, values, labels, **columns):
    cells = pa.array([{"bytes": png(value), "path": None} for value in values], KIND)
    path.parent.mkdir(exist_ok=True)
    pq.write_table(pa.table({"image": cells, "label": labels, **columns}), path)
    return str(path)


@pytest.fixture
def hub(tmp_path):
    for number in range(2):
        write(
            tmp_path / "data" / f"train-0000{number}-of-00002.parquet",
            [number, number + 10],
            ["b", "a"],
            id=[number, 5],
        )
    write(tmp_path / "data" / "validation-00000-of-00001.parquet", [50], ["b"])
    return tmp_path / "data"


def test_shards_of_a_part_are_found_by_folder_pattern_and_list(hub):
    names = [path.name for path in find_shards(str(hub), "train")]
    assert names == ["train-00000-of-00002.parquet", "train-00001-of-00002.parquet"]
    for given in (str(hub), str(hub / "train-*.parquet"), [str(hub / name) for name in names]):
        source = ParquetSource(given, str(hub))
        assert source.class_names == ("a", "b")
        assert source.train().labels.tolist() == [1, 0, 1, 0]
        assert source.train().pixels[:, 0, 0, 0].tolist() == [0, 10, 1, 11]
        assert source.train().columns["id"].tolist() == [0, 5, 1, 5]
        assert source.test().labels.tolist() == [1]


def test_missing_shards_are_named(hub):
    for given in (str(hub / "test-*.parquet"), str(hub.parent)):
        with pytest.raises(FileNotFoundError, match="Expected parquet files"):
            ParquetSource(given, str(hub)).train()


def test_order_of_names_is_the_given_one(hub):
    assert ParquetSource(str(hub), str(hub), ["b", "c", "a"]).train().labels.tolist() == [0, 2, 0, 2]
    with pytest.raises(ValueError, match="row 1: the class 'a' is none of: b, c"):
        ParquetSource(str(hub), str(hub), ["b", "c"]).train()


def test_rows_with_a_path_only_are_refused(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"image": pa.array([{"bytes": None, "path": "x.png"}], KIND), "label": [0]}), path)
    with pytest.raises(ValueError, match=r"row 0: the image has no bytes, only a path \('x.png'\)"):
        ParquetSource(str(path), str(path)).train()


def test_two_columns_of_one_name_are_refused(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(
        pa.Table.from_arrays([pa.array([b""]), pa.array([0]), pa.array([1])], ["image", "label", "label"]), path
    )
    with pytest.raises(ValueError, match="two columns 'label'"):
        ParquetSource(str(path), str(path)).train()


def test_bombs_are_refused(tmp_path):
    many, large = tmp_path / "many.parquet", tmp_path / "large.parquet"
    rows = 40_000_000
    label = pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int8)), pa.array([0]))
    pq.write_table(pa.table({"label": label}), many, compression="zstd")
    same = pa.DictionaryArray.from_arrays(pa.array(np.zeros(3000, np.int32)), pa.array([bytes(10**6)]))
    pq.write_table(
        pa.table({"image": same, "label": pa.array([0] * 3000)}), large, compression="zstd", store_schema=False
    )
    for path in (many, large):
        with pytest.raises(ValueError, match=f"{path.name}.* unfold"):
            ParquetSource(str(path), str(path)).train()
