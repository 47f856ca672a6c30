import pytest
import tiny

from lit_backdoor.bundle import save_bundle


@pytest.fixture
def path(tmp_path):
    save_bundle(tmp_path / "b", kind="suspect", module=tiny.classifier(), attack=tiny.attack(), numbers={"n": 1})
    return tmp_path / "b"
