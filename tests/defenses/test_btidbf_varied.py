"""BTI-DBF (P) with new generators in each round."""

import math

import lightning.pytorch as pl
import pytest
import torch
from btidbf_parts import data, suspect, trainer, unet
from lightning.pytorch.callbacks import ModelCheckpoint

from lit_backdoor.bundle import open_bundle
from lit_backdoor.defenses.btidbf import BTIDBFVariedPurification, Decoupling, InversionSettings, varied_purification
from lit_backdoor.models import Purified
from lit_backdoor.stages import BundleWriter, Span

EPOCHS = 9  # of three rounds


def stage(**options):
    given = {
        "decoupling": Decoupling(epochs=1),
        "inversion": InversionSettings(epochs=1),
        "rounds": 3,
        "purify_epochs": 1,
    }
    return BTIDBFVariedPurification(suspect(), purifier=unet(), **{**given, **options})


def run(found, epochs=EPOCHS, **options):
    trainer(epochs, **options).fit(found, datamodule=data())
    return found


def test_rounds_have_generators_of_their_own(tmp_path):
    found, starts = stage(), []

    class Note(pl.Callback):
        def on_fit_start(self, trainer, pl_module):
            starts.extend({k: v.clone() for k, v in net.state_dict().items()} for net in pl_module.generators)

    run(found, callbacks=[Note(), BundleWriter(str(tmp_path))])
    assert len(found.generators) == 3
    for net, start in zip(found.generators, starts, strict=True):
        for name in ("wide.pattern", "wide.last.weight", "local.raw_place", "local.raw_pattern"):
            assert not torch.equal(net.state_dict()[name], start[name])
    assert isinstance(open_bundle(tmp_path, "suspect").build(), Purified)


@pytest.mark.slow
def test_resumed_run_is_exact(tmp_path):
    class Stop(pl.Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            trainer.should_stop = trainer.current_epoch == 4  # between inversion and purification of the second round

    whole = run(stage()).state_dict()
    half = stage()
    keep = ModelCheckpoint(tmp_path, filename="last")
    run(half, callbacks=[Stop(), keep], enable_checkpointing=True)
    assert half.current_epoch == 5
    resumed = stage()
    trainer(EPOCHS).fit(resumed, datamodule=data(), ckpt_path=str(tmp_path / "last.ckpt"), weights_only=True)
    again = resumed.state_dict()
    assert whole.keys() == again.keys()
    assert all(torch.equal(whole[key], again[key]) for key in whole if not whole[key].isnan().any())


@pytest.mark.slow
def test_weights_do_not_depend_on_the_attack():
    found = [stage(), stage()]
    for one, attack in zip(found, (True, None), strict=True):
        trainer(EPOCHS).fit(one, datamodule=data(attack=attack))
    first, second = (one.state_dict() for one in found)
    assert all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize("number", [0, 1, 2])
def test_lesson_has_the_triggers_of_all_rounds_so_far(monkeypatch, number):
    found = stage(occluded=0.25)
    found.configure_model()
    found.generators = torch.nn.ModuleList(_Pair(value) for value in (0.125, 0.375, 0.625))
    monkeypatch.setattr(BTIDBFVariedPurification, "span", Span("purify", number, 0, 1))
    monkeypatch.setattr(varied_purification, "pieces", lambda images, generated: generated)
    monkeypatch.setattr(varied_purification, "occlusions", torch.zeros_like)
    torch.manual_seed(0)
    values, counts = found.triggered(torch.rand(800, 3, 16, 16))[:, 0, 0, 0].unique(return_counts=True)
    assert values.tolist() == [0, 0.125, 0.25, 0.375, 0.5, 0.625, 0.75][: 2 * number + 3]
    assert counts[0].item() == pytest.approx(200, abs=40)
    assert counts[1:].float().div(300 / (number + 1)).sub(1).abs().max() < 0.3


def test_learning_rate_falls_over_the_rounds():
    rates = []

    class Note(pl.Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            if pl_module.span.phase == "purify" and batch_idx == 0:
                rates.append(pl_module.optimizer_of("purify").optimizer.param_groups[0]["lr"])

    run(stage(rounds=2, purify_epochs=2, lr=1e-3), epochs=8, callbacks=[Note()])
    assert rates == pytest.approx([1e-3 * (1 + math.cos(math.pi * done / 4)) / 2 for done in range(4)])


@pytest.mark.parametrize("option", [{"occluded": 1.0}, {"local_share": 0.0}])
def test_shares_outside_their_range_are_refused(option):
    with pytest.raises(ValueError, match="Expected the share of"):
        stage(**option)


class _Pair(torch.nn.Module):
    def __init__(self, value):
        super().__init__()
        self.wide, self.local = _Constant(value), _Constant(value + 0.125)


class _Constant(torch.nn.Module):
    def __init__(self, value):
        super().__init__()
        self.value = value

    def forward(self, images):
        return torch.full_like(images, self.value)
