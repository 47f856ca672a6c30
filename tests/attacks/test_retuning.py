import pytest
import tiny
import torch

from lit_backdoor.attacks import Retuning
from lit_backdoor.triggers import Role


def test_tunes_on_root_data_and_five_poisoned_samples(monkeypatch):
    seen = []
    stage = Retuning(tiny.classifier())
    datamodule = tiny.data(tiny.attack())
    losses = stage.losses
    monkeypatch.setattr(stage, "losses", lambda batch: seen.append(batch) or losses(batch))
    tiny.fit(stage, datamodule)
    assert {batch["view"] for batch in seen} == {"root"}
    view = datamodule.get_view("questioned")
    first = (view.role == Role.POISON).nonzero().flatten()[:5]
    assert stage._labels.tolist() == [0] * 5
    clean = view.rows.images(view.index[first]).float() / 255
    changed = (stage._images != clean).any(1)  # a white patch of 3 x 3 at (1, 1)
    assert changed[:, 1:4, 1:4].any()
    assert not changed[:, 5:, 5:].any()
    torch.testing.assert_close(stage._images[:, :, 1:4, 1:4], torch.ones(5, 3, 3, 3))


def test_brings_a_backdoor_back_that_plain_fine_tuning_does_not(monkeypatch):
    from lit_backdoor.stages import FineTune

    def asr(cls):
        stage = cls(tiny.classifier(), optimizer=lambda p: torch.optim.Adam(p, lr=1e-2))
        datamodule = tiny.data(tiny.attack())
        tiny.fit(stage, datamodule, max_epochs=12)
        return tiny.tested(stage, datamodule)["test/asr"]

    assert asr(Retuning) > asr(FineTune) + 0.3


def test_needs_poisoned_rows():
    with pytest.raises(ValueError, match="data with an attack"):
        tiny.fit(Retuning(tiny.classifier()), tiny.data())
    with pytest.raises(ValueError, match="at least 1"):
        Retuning(tiny.classifier(), samples=0)
