import pytest
from PIL import Image

from lit_backdoor.data.sources import CsvSource


@pytest.fixture
def table(tmp_path):
    (tmp_path / "images").mkdir()
    for name in "abc":
        Image.new("RGB", (8, 8)).save(tmp_path / "images" / f"{name}.png")

    def write(text, name="train.csv"):
        (tmp_path / name).write_text(text)
        return str(tmp_path / name)

    return write


NAMES = "file,x,class\nimages/a.png,1,dog\nimages/b.png,2,cat\nimages/c.png,3,dog\n"


def test_names_are_numbered_in_sorted_order_or_in_the_given_one(table):
    path = table(NAMES)
    source = CsvSource(path, path)
    assert source.class_names == ("cat", "dog")
    assert source.train().labels.tolist() == [1, 0, 1]
    assert CsvSource(path, path, classes=["dog", "cow", "cat"]).train().labels.tolist() == [0, 2, 0]


def test_columns_by_name_numbers_and_semicolons(table, tmp_path):
    path = table("Width;Filename;ClassId;Note\n8;a.png;00003;u\n8;b.png;0;v\n")
    options = {"folder": str(tmp_path / "images"), "image_column": "Filename", "label_column": "ClassId"}
    source = CsvSource(path, path, **options, in_memory=True)
    assert source.class_names == ("0", "1", "2", "3")
    assert source.test().labels.tolist() == [3, 0]
    assert source.image_size == (8, 8)


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        (NAMES, {"label_column": "label"}, "no column 'label'.*It has: file, x, class"),
        (NAMES.replace("b.png", "z.png"), {}, r"line 3: there is no image '.*z.png'"),
        (NAMES, {"classes": ["dog"]}, "line 3: the class 'cat' is none of dog"),
        ("file,class\nimages/a.png\n", {}, "line 2: expected 2 columns"),
        ("", {}, "Expected a header"),
        ("file\nimages/a.png\n", {}, "Expected a header"),
        (f"file,class\n{'a' * 200_000},dog\n", {}, "is no table of text .field larger"),
    ],
)
def test_wrong_tables_are_refused(table, text, options, message):
    path = table(text)
    with pytest.raises(ValueError, match=message):
        CsvSource(path, path, **options).train()
