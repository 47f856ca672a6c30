import pytest
import tiny

from lit_backdoor.bundle import open_bundle, save_bundle
from lit_backdoor.stages import GivenSuspect


def test_suspect_comes_out_as_it_went_in(tmp_path):
    given = save_bundle(tmp_path / "given", kind="suspect", module=tiny.classifier())
    stage = GivenSuspect(str(given.path), given.hash)
    tiny.trainer().predict(stage, tiny.data(), return_predictions=False)
    stage.export(tmp_path / "out")
    taken = open_bundle(tmp_path / "out", "suspect")
    assert not tiny.moved(tiny.tensors(given.build()), tiny.tensors(taken.build()))
    assert taken.info["inputs"]["suspect"]["hash"] == given.hash


def test_another_suspect_in_its_place_is_refused(tmp_path):
    given = save_bundle(tmp_path / "given", kind="suspect", module=tiny.classifier())
    save_bundle(tmp_path / "given", kind="suspect", module=tiny.classifier(seed=1))
    with pytest.raises(ValueError, match="Expected the suspect with the hash"):
        tiny.trainer().predict(GivenSuspect(str(given.path), given.hash), tiny.data(), return_predictions=False)
