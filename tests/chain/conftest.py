import shutil

import pytest
import tiny

from lit_backdoor.chain.compose import compose
from lit_backdoor.chain.run import ChainRun


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("LIT_BACKDOOR_CACHE", str(folder))
    return folder


@pytest.fixture(scope="session")
def file(tmp_path_factory):
    return tiny.write_chain(tmp_path_factory.mktemp("chains") / "tiny.yaml")


@pytest.fixture(scope="session")
def finished(file, tmp_path_factory):
    """A chain that ran through: its folder and its results."""
    out = tmp_path_factory.mktemp("finished") / "out"
    return out, ChainRun(compose(file), "tiny", out, use_cache=False).run()


@pytest.fixture
def copy(finished, tmp_path):
    """A finished chain to be spoiled."""
    shutil.copytree(finished[0], tmp_path / "copy")
    return tmp_path / "copy"
