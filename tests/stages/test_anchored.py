"""A fine-tune is held to the suspect's answers on mixtures of root images."""

import numpy as np
import pytest
import tiny
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from scipy.special import log_softmax
from torch.nn import functional as F

from lit_backdoor.defenses.atclean import AnchoredUnlearningFineTune
from lit_backdoor.defenses.pgbd import AnchoredStampPGBD
from lit_backdoor.defenses.tac import AnchoredTACStampFineTune
from lit_backdoor.functional.mixtures import mixtures
from lit_backdoor.stages import Anchored, FineTune

STAGES = (AnchoredStampPGBD, AnchoredTACStampFineTune)


class _Harmful(FineTune):
    """Pushes every image out of class 0."""

    def losses(self, batch):
        return {"loss": F.softplus(self.classifier(batch["image"])[:, 0]).mean()}


class Harmful(Anchored, _Harmful):
    def __init__(self, suspect, anchor):
        super().__init__(suspect, batch_norm="eval")
        self.anchor = anchor


def suspect():
    stage = FineTune(tiny.classifier(), optimizer=lambda weights: torch.optim.Adam(weights, 3e-3))
    net = tiny.fit(stage, tiny.data(), max_epochs=30).classifier
    return net.eval()


def test_loss_is_that_of_the_stage_and_the_weighed_distance():
    stage = tiny.fit(Harmful(suspect(), 3.0), tiny.data())
    steps = tiny.recorded(stage)
    batch = next(iter(stage.passes("root")))
    torch.manual_seed(4)
    found = stage.losses(batch)
    torch.manual_seed(4)
    mixed = mixtures(batch["image"])
    with torch.no_grad():
        own, wanted = (log_softmax(net(mixed).numpy() / 2, 1) for net in (stage.classifier, stage.before))
        harm = F.softplus(stage.classifier(batch["image"])[:, 0]).mean()
    distance = 4 * (np.exp(wanted) * (wanted - own)).sum(1).mean()
    assert float(found["kept"].detach()) == pytest.approx(distance, rel=1e-3)
    assert float(found["loss"].detach()) == pytest.approx(float(harm) + 3 * distance, rel=1e-3)
    assert len(steps) == 1


def test_class_that_a_penalty_would_give_up_is_kept():
    start, batch = suspect(), next(iter(tiny.fit(FineTune(tiny.classifier()), tiny.data()).passes("root")))
    lost, kept = (tiny.fit(Harmful(start, anchor), tiny.data(), max_epochs=30).classifier for anchor in (0.0, 10.0))
    images = batch["image"][batch["label"] == 0]
    assert (start(images).argmax(1) == 0).float().mean() > 0.9
    assert (lost.eval()(images).argmax(1) == 0).float().mean() < 0.5
    assert (kept.eval()(images).argmax(1) == 0).float().mean() > 0.9


def test_answers_are_those_of_the_suspect_as_it_was():
    start = suspect()
    stage = tiny.fit(Harmful(start, 1.0), tiny.data(), max_epochs=3)
    assert not tiny.moved(start.state_dict(), stage.before.module.state_dict())
    assert tiny.moved(start.state_dict(), stage.classifier.state_dict())
    assert not any(name.startswith("before") for name in stage.state_dict())


@pytest.mark.parametrize("cls", STAGES)
def test_resumed_run_equals_one_that_was_not_stopped(cls, tmp_path):
    saver = ModelCheckpoint(tmp_path, "{epoch}", save_top_k=-1)
    options = {"max_epochs": 4, "limit_val_batches": 0}
    straight, resumed = (cls(tiny.classifier(), target=0) for _ in range(2))
    tiny.fit(straight, tiny.data(), **options, callbacks=[saver], enable_checkpointing=True)
    tiny.trainer(**options).fit(resumed, tiny.data(), ckpt_path=tmp_path / "epoch=1.ckpt", weights_only=True)
    assert not tiny.moved(straight.state_dict(), resumed.state_dict())


@pytest.mark.parametrize("cls", STAGES)
@pytest.mark.parametrize("value", [-0.1, float("inf"), float("nan")])
def test_weights_out_of_range_are_refused(cls, value):
    with pytest.raises(ValueError, match="anchor to be finite and 0 or more"):
        cls(tiny.classifier(), target=0, anchor=value)
    with pytest.raises(ValueError, match="anchor to be finite and 0 or more"):
        AnchoredUnlearningFineTune(tiny.classifier(), tiny.unet(), anchor=value)


def test_mixtures_do_not_move_the_norms_statistics():
    stage = tiny.fit(Harmful(suspect(), 3.0), tiny.data())
    batch = next(iter(stage.passes("root")))
    stage.classifier.train()
    before = {name: value.clone() for name, value in stage.classifier.named_buffers()}
    stage.anchored({"loss": torch.zeros(())}, batch)["loss"].backward()
    assert all(torch.equal(value, before[name]) for name, value in stage.classifier.named_buffers())
    assert stage.classifier.training
