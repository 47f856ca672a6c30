import pytest
import tiny

from lit_backdoor.bundle import save_bundle
from lit_backdoor.stages import LowestLoss


@pytest.fixture(scope="session")
def victim(tmp_path_factory):
    """A suspect bundle of random weights."""
    path = tmp_path_factory.mktemp("bundles") / "victim"
    save_bundle(path, kind="suspect", module=tiny.classifier(), attack=tiny.attack())
    return str(path)


@pytest.fixture(scope="session")
def selection(victim, tmp_path_factory):
    """A selection bundle of the rows with the lowest loss."""
    path = tmp_path_factory.mktemp("bundles") / "selection"
    stage = LowestLoss(victim, share=0.1)
    tiny.trainer().predict(stage, datamodule=tiny.data(tiny.attack()), return_predictions=False)
    stage.export(path)
    return str(path)
