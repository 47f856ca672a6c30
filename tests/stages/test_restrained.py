"""A penalty gives way while a class is lost on held-out root images, and comes back later."""

from itertools import pairwise

import pytest
import tiny
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.nn import functional as F

from lit_backdoor.data import Split
from lit_backdoor.defenses.pgbd import RestrainedStampPGBD
from lit_backdoor.stages import Restrained


class Harmful(Restrained):
    """Shifts the logits of class 0 in the epochs that are named, and notes what its penalty is weighed by."""

    def begin_epoch(self):
        with torch.no_grad():
            self.classifier.final_linear.bias[0] = -1e4 if self.current_epoch in (2, 3) else self.start
        super().begin_epoch()
        self.__dict__.setdefault("noted", []).append(float(self.eased))

    def build(self):
        super().build()
        with torch.no_grad():
            self.start = self.classifier.final_linear.bias[0] + 1e3  # class 0 everywhere, with probability 1

    def losses(self, batch):
        return {"loss": 0 * F.cross_entropy(self.classifier(batch["image"]), batch["label"])}


def run(stage, epochs):
    tiny.fit(stage, tiny.data(split=Split(root_pool=60)), max_epochs=epochs)  # 12 of them are held out
    return stage.noted


def test_penalty_gives_way_and_comes_back():
    found = run(Harmful(tiny.classifier()), 7)
    assert found[0] == 1 / 64
    assert [after / before for before, after in pairwise(found)] == [1.25, 0.5, 0.5, 1.25, 1.25, 1.25]


def test_stamps_of_pgbd_weigh_their_penalty_by_it():
    stage = tiny.fit(RestrainedStampPGBD(tiny.classifier(), target=0, weight=2.0), tiny.data())
    assert float(stage.strength) == 2 / 64
    stage.eased.fill_(0.25)
    assert float(stage.strength) == 0.5


def test_no_step_sees_the_rows_that_are_held_out():
    stage = RestrainedStampPGBD(tiny.classifier(), target=0)
    stage.seen = set()
    rest = stage.rest

    def noted(batch):
        kept = rest(batch)
        stage.seen |= set(kept["index"].tolist())
        return kept

    stage.rest = noted
    tiny.fit(stage, tiny.data(), max_epochs=2)
    assert len(stage.seen) == 19  # of 24


def test_resumed_run_equals_one_that_was_not_stopped(tmp_path):
    saver = ModelCheckpoint(tmp_path, "{epoch}", save_top_k=-1)
    options = {"max_epochs": 4, "limit_val_batches": 0}
    straight, resumed = (RestrainedStampPGBD(tiny.classifier(), target=0) for _ in range(2))
    tiny.fit(straight, tiny.data(), **options, callbacks=[saver], enable_checkpointing=True)
    tiny.trainer(**options).fit(resumed, tiny.data(), ckpt_path=tmp_path / "epoch=1.ckpt", weights_only=True)
    assert 0 < float(straight.eased) < 1
    assert not tiny.moved(straight.state_dict(), resumed.state_dict())


@pytest.mark.parametrize("value", [-0.1, 0.0, 1.0, 1.5, float("nan")])
def test_tolerances_out_of_range_are_refused(value):
    with pytest.raises(ValueError, match="tolerance"):
        RestrainedStampPGBD(tiny.classifier(), target=0, tolerance=value)
