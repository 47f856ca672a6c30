"""Hostile and broken configuration files, through ``chain`` and ``fit``."""

import pytest
import tiny
import yaml
from cli_parts import written
from hostile_parts import assert_refused

LAUGHS = "\n".join(["a0: &a0 [x, x, x, x, x, x, x, x, x]"] + [
    f"a{n}: &a{n} [{', '.join(f'*a{n - 1}' for _ in range(9))}]" for n in range(1, 12)
])  # fmt: skip
MERGES = "\n".join(["a0: &a0 {x: 1}"] + [
    f"a{n}: &a{n} {{k{n}: 1, <<: [{', '.join(f'*a{n - 1}' for _ in range(9))}]}}" for n in range(1, 12)
])  # fmt: skip
LEGAL = ("merges of merges",)  # each key counts once, so that little is left, and the parser says what is wrong
TEXTS = {
    "aliases of aliases": LAUGHS,
    "merges of merges": MERGES,
    "many merges": "a: &a {x: 1}\nb:\n  <<: [" + ", ".join(["*a"] * 10_000) + "]",
    "holds itself": "a: &a [*a]",
    "holds itself many times": "a: &a [" + ", ".join(["*a"] * 10_000) + "]",
    "deep": "[" * 50_000,
    "deep mappings": "{a: " * 5_000,
    "long": "a: [" + "0, " * 2_000_000 + "0]",
    "binary": "\x00\x01\x02",
    "object of Python": "!!python/object/apply:os.system ['touch ../marker']",
    "name of Python": "stages: !!python/name:os.system",
    "module of Python": "stages: !!python/module:antigravity",
    "new object of Python": "a: !!python/object/new:os.system ['touch ../marker']",
    "key twice": "format: 1\nformat: 1",
    "list": "[1, 2]",
    "number": "3",
    "empty": "",
    "several documents": "a: 1\n---\nb: 2",
    "tabs": "a:\n\t- b",
}


@pytest.mark.parametrize("name", TEXTS)
def test_chain_file(tmp_path, name):
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "c.yaml").write_text(TEXTS[name])
    assert_refused(tmp_path, ["chain", "c.yaml", "--out", "o"])


@pytest.mark.parametrize("name", [name for name in TEXTS if name not in ("list", "number", "empty", *LEGAL)])
def test_configuration_of_a_stage(tmp_path, name):
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "c.yaml").write_text(TEXTS[name])
    assert_refused(tmp_path, ["fit", "--config", "c.yaml", "--out", "o"])


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"\x80abc"])
def test_bytes_that_are_no_text(tmp_path, content):
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "c.yaml").write_bytes(content)
    assert_refused(tmp_path, ["chain", "c.yaml", "--out", "o"])


NAMES = ["os.system", "subprocess.Popen", "builtins.exec", "shutil.rmtree", "lit_backdoor.bundle.shutil"]


@pytest.mark.parametrize("name", NAMES)
def test_chain_that_names_a_function_for_a_stage(tmp_path, name):
    (tmp_path / "work").mkdir()
    chain = tiny.chain()
    chain["stages"]["victim"]["model"] = {"class_path": name, "init_args": {"command": "touch ../marker"}}
    (tmp_path / "work" / "c.yaml").write_text(yaml.safe_dump(chain))
    assert_refused(tmp_path, ["chain", "c.yaml", "--out", "o"])


@pytest.mark.parametrize("name", NAMES)
def test_stage_that_is_a_function(tmp_path, name):
    (tmp_path / "work").mkdir()
    config = written(tmp_path / "work", {"class_path": name, "init_args": {"command": "touch ../marker"}})
    assert_refused(tmp_path, ["fit", "--config", config])
