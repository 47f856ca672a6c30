"""Features of root images that stand still through a phase are computed once."""

import lightning.pytorch as pl
import pytest
import torch
from btidbf_parts import data, suspect, trainer, unet
from lightning.pytorch.callbacks import ModelCheckpoint

from lit_backdoor.defenses.btidbf import BTIDBFInversion, BTIDBFPurification, Decoupling, InversionSettings
from lit_backdoor.defenses.btidbf.inverting import Inverting

ONE = Decoupling(epochs=1)


def inversion():
    return BTIDBFInversion(suspect(), ONE, InversionSettings(epochs=3), unet())


def purification():
    return BTIDBFPurification(suspect(), ONE, InversionSettings(epochs=2), unet(), unet(), rounds=1, purify_epochs=1)


def run(stage, **options):
    trainer(stage.planned_epochs).fit(stage, datamodule=data(**options))
    return stage


@pytest.mark.parametrize("make", [inversion, purification])
def test_without_augmentation_they_are_kept(make, monkeypatch):
    passes = []
    compute = Inverting._features_of_root
    monkeypatch.setattr(
        Inverting, "_features_of_root", lambda self, net: passes.append(self.span.phase) or compute(self, net)
    )
    stage = run(make(), augment=None)
    assert passes == ["invert"] if make is inversion else ["invert", "purify"]
    monkeypatch.setattr(Inverting, "features_of", lambda self, net, batch: self.features(net, batch["image"]).detach())
    again = run(make(), augment=None)
    for name, weight in again.generator.state_dict().items():
        torch.testing.assert_close(stage.generator.state_dict()[name], weight, rtol=1e-4, atol=1e-6)


def test_augmented_ones_are_not():
    assert run(inversion())._known is None


def test_resumed_within_a_phase_is_exact(tmp_path):
    class Stop(pl.Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            trainer.should_stop = trainer.current_epoch == 2

    whole = run(inversion(), augment=None)
    checkpoint = ModelCheckpoint(tmp_path, filename="last")
    half = trainer(4, callbacks=[Stop(), checkpoint], enable_checkpointing=True)
    half.fit(inversion(), datamodule=data(augment=None))
    resumed = inversion()
    trainer(4).fit(resumed, datamodule=data(augment=None), ckpt_path=str(tmp_path / "last.ckpt"), weights_only=True)
    for name, weight in whole.generator.state_dict().items():
        assert torch.equal(resumed.generator.state_dict()[name], weight)
