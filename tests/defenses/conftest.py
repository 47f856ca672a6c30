import pytest
import tiny

from lit_backdoor.bundle import save_bundle


@pytest.fixture
def suspect(tmp_path):
    """A suspect bundle of random weights."""
    return str(save_bundle(tmp_path / "suspect", kind="suspect", module=tiny.classifier()).path)
