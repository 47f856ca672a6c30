import pytest
import torch
from foreign_parts import MEAN, STD, ForeignData, ForeignModule, normalized, trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.nn import functional as F

from lit_backdoor.data import BackdoorDataModule, TensorSource, wrap
from lit_backdoor.stages.callbacks import AttackSuccessCallback
from lit_backdoor.triggers.base import Attack, Trigger


class Corner(Trigger):
    def forward(self, images, index):
        images = images.clone()
        images[:, :, 0, 0] = 1
        return images


class Backdoored(ForeignModule):
    """Says class 1 where the corner is white and half of the rows agree, else class 2."""

    def forward(self, images):
        corner = images[:, 0, 0, 0] * STD[0] + MEAN[0]
        row = ((images[:, 0, 7, 7] * STD[0] + MEAN[0]) * 200).round().long()
        logits = torch.zeros(len(images), 4)
        fooled = (corner > 0.99) & (row % 8 < 4)
        logits[torch.arange(len(images)), torch.where(fooled, 1, 2)] = 1
        return logits + 0 * super().forward(images)


def expected(count):
    row = torch.arange(count)
    eligible, fooled = row % 4 != 1, row % 8 < 4
    asr = (fooled & eligible).sum() / eligible.sum()
    return float(asr), float((~fooled & (row % 4 == 2)).sum() / eligible.sum())


@pytest.fixture
def attack():
    return Attack(Corner(), target=1, rate=0.2)


@pytest.mark.parametrize("form", ["tuple", "dict"])
def test_wrapped_data_gives_asr_and_ra(attack, form):
    module, run = Backdoored(), trainer(callbacks=[AttackSuccessCallback()])
    run.fit(module, wrap(ForeignData(form), attack, MEAN, STD))
    asr, ra = expected(30)
    assert run.callback_metrics["val/asr"].item() == pytest.approx(asr)
    assert run.callback_metrics["val/ra"].item() == pytest.approx(ra)
    assert set(run.callback_metrics) == {"val_loss", "val/asr", "val/ra"}


def test_foreign_data_needs_the_attack_only(attack):
    run = trainer(callbacks=[AttackSuccessCallback(attack, mean=MEAN, std=STD)])
    module = Backdoored()
    run.fit(module, ForeignData())
    assert run.callback_metrics["val/asr"].item() == pytest.approx(expected(30)[0])
    assert module.validated == 2 * 7 + 30  # sanity check, then each row once: no loader was added


def test_our_data_with_somebodys_module(attack):
    images = (torch.arange(40) / 200 * 255).round().to(torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 8, 8)
    part = (images, torch.arange(40) % 4)
    data = BackdoorDataModule(TensorSource(part, part), attack=attack, eval_batch_size=13)
    callback = AttackSuccessCallback(datamodule=data, mean=MEAN, std=STD)
    run = trainer(callbacks=[callback])
    run.validate(Backdoored(), ForeignData(), verbose=False)
    asr, ra = expected(40)
    assert run.callback_metrics["val/asr"].item() == pytest.approx(asr)
    assert run.callback_metrics["val/ra"].item() == pytest.approx(ra)
    short = trainer(callbacks=[callback], limit_val_batches=1)
    short.validate(Backdoored(), ForeignData(), verbose=False)
    assert short.callback_metrics["val/ra"].item() == pytest.approx(expected(13)[1])
    assert expected(13)[1] != pytest.approx(ra)


def test_checkpoint_callback_keeps_its_metric(attack, tmp_path):
    checkpoint = ModelCheckpoint(tmp_path, monitor="val_loss", filename="{epoch}")
    run = trainer(callbacks=[AttackSuccessCallback(), checkpoint], enable_checkpointing=True, max_epochs=2)
    run.fit(ForeignModule(), wrap(ForeignData(), attack, MEAN, STD))
    assert checkpoint.best_model_score is not None
    assert run.checkpoint_callbacks == [checkpoint]


def test_checkpoint_may_watch_asr(attack, tmp_path):
    checkpoint = ModelCheckpoint(tmp_path, monitor="val/asr", filename="{epoch}")
    run = trainer(callbacks=[AttackSuccessCallback(), checkpoint], enable_checkpointing=True)
    run.fit(Backdoored(), wrap(ForeignData(), attack, MEAN, STD))
    assert checkpoint.best_model_score.item() == pytest.approx(expected(30)[0])


def test_no_eligible_row_is_nan(attack):
    class One(ForeignData):
        def setup(self, stage):
            super().setup(stage)
            self.val = [(torch.zeros(3, 8, 8), 1)]

    run = trainer(callbacks=[AttackSuccessCallback()])
    run.fit(Backdoored(), wrap(One(), attack, MEAN, STD))
    assert torch.isnan(run.callback_metrics["val/asr"])


def test_the_pass_leaves_what_the_training_draws(attack):
    class Dropping(ForeignModule):
        def forward(self, images):
            return super().forward(F.dropout(images, training=self.training))

    def trained(callbacks):
        torch.manual_seed(0)
        module = Dropping()
        trainer(max_epochs=2, callbacks=callbacks).fit(module, wrap(ForeignData(), attack, MEAN, STD))
        return module.layer.weight

    assert torch.equal(trained([]), trained([AttackSuccessCallback()]))


def test_every_n_epochs(attack):
    run = trainer(callbacks=[AttackSuccessCallback(every_n_epochs=2)])
    run.fit(Backdoored(), wrap(ForeignData(), attack, MEAN, STD))
    assert "val/asr" not in run.callback_metrics


def test_nothing_to_stamp_is_an_error():
    with pytest.raises(ValueError, match="Expected a data module to stamp"):
        trainer(callbacks=[AttackSuccessCallback()]).validate(ForeignModule(), ForeignData(), verbose=False)
    with pytest.raises(ValueError, match="every_n_epochs"):
        AttackSuccessCallback(every_n_epochs=0)


@pytest.mark.slow
def test_two_processes_count_every_row_once(attack):
    run = trainer(strategy="ddp_spawn", devices=2, callbacks=[AttackSuccessCallback()])
    run.fit(Backdoored(), wrap(ForeignData(n_val=31), attack, MEAN, STD))
    assert run.callback_metrics["val/asr"].item() == pytest.approx(expected(31)[0])


def test_normalized_helper_is_the_inverse_of_ours():
    assert normalized(torch.tensor(MEAN).view(3, 1, 1)).abs().max() < 1e-6
