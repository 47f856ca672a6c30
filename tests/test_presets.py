"""Where the cache is, and how configurations are read."""

from pathlib import Path

import pytest

from lit_backdoor.presets import LARGEST, at_home, cache_folder, read_config, read_method, read_yaml


@pytest.mark.parametrize(
    ("named", "users", "expected"),
    [
        ("/scratch/kept", "/scratch/users", "/scratch/kept"),
        ("~/kept", None, "HOME/kept"),
        (None, "/scratch/users", "/scratch/users/lit_backdoor"),
        (None, None, "HOME/.cache/lit_backdoor"),
        ("", "", "HOME/.cache/lit_backdoor"),
    ],
)
def test_the_cache_is_where_the_environment_says(monkeypatch, named, users, expected):
    for name, value in (("LIT_BACKDOOR_CACHE", named), ("XDG_CACHE_HOME", users)):
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, value)
    assert cache_folder() == Path(expected.replace("HOME", str(Path.home())))


LAUGHS = "\n".join(["a0: &a0 [x, x, x]", *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 9))])
MERGES = "\n".join(["a0: &a0 {x: 1}", *(f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}" for n in range(1, 9))])


@pytest.mark.parametrize("text", [LAUGHS, "a: &a [*a]", "[" + "0," * 2**18 + "0]"])
def test_yaml_that_stands_for_too_much_is_refused(text):
    with pytest.raises(ValueError, match="stand for more than|characters"):
        read_yaml(text)


def test_aliases_and_merges_that_stay_small_are_read():
    assert read_yaml("a: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}\nc: [*a, *a]")["b"] == {"x": 1, "y": 3}
    assert read_yaml(MERGES)["a8"] == {"x": 1}


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e-4", 1e-4), ("{lr: 1e30}", {"lr": 1e30}), ("2.5E+3", 2500.0), ("96e014712d23", "96e014712d23"), ("1e", "1e")],
)
def test_numbers_with_exponents_are_numbers_and_keys_are_texts(text, value):
    assert read_yaml(text) == value


@pytest.mark.parametrize(
    "text",
    ["!!int ''", "!!bool maybe", "!!float ''", "!!timestamp soon", "!!timestamp 2020-99-99", "!!set [1]", "!!omap [1]"],
)
def test_a_value_that_does_not_fit_its_tag_is_refused(text):
    with pytest.raises(ValueError, match=r"."):
        read_yaml(f"x: {text}")


def test_a_file_that_is_too_large_is_not_read(tmp_path, monkeypatch):
    file = tmp_path / "large.yaml"
    with file.open("wb") as opened:
        opened.truncate(4 * LARGEST + 1)
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: pytest.fail("it was read"))
    with pytest.raises(ValueError, match=r"large.yaml is not YAML: it has 1,048,577 bytes"):
        read_config("chains", file)


def test_a_mark_of_the_byte_order_is_no_part_of_the_text(tmp_path):
    (tmp_path / "a.yaml").write_text("format: 1", encoding="utf-8-sig")
    assert read_config("chains", tmp_path / "a.yaml") == {"format": 1}


@pytest.mark.parametrize("text", ["[1, 2]", "many", "needs: [root]"])
def test_a_method_s_file_without_keys_is_refused(tmp_path, text):
    (tmp_path / "method.yaml").write_text(text)
    with pytest.raises(ValueError, match=r"Expected keys and values in .*method.yaml"):
        read_method(tmp_path)


def test_a_home_that_nobody_knows_is_refused(monkeypatch):
    monkeypatch.setenv("LIT_BACKDOOR_CACHE", "~nobody-of-this-name/kept")
    with pytest.raises(ValueError, match="without zero bytes"):
        at_home("a\0b")
    for find in (cache_folder, lambda: at_home("~nobody-of-this-name/data")):
        with pytest.raises(ValueError, match="Expected a path whose ~ is somebody's home, got '~nobody"):
            find()
