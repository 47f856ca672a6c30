"""Where the cache is."""

from pathlib import Path

import pytest

from lit_backdoor.presets import cache_folder


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
