"""NPD."""

import pytest
import tiny
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from repair_parts import changed_by_the_attack, measured, repaired, trained

from lit_backdoor.bundle import open_bundle
from lit_backdoor.defenses.npd import NeuralPolarizer


def fast(parameters):
    return torch.optim.Adam(parameters, lr=0.03)


def test_loss_is_made_of_the_probabilities_as_written(suspect):
    stage = NeuralPolarizer(suspect, weight=0.5, budget=1e-6, steps=1)  # the changed images are the clean ones
    steps = tiny.recorded(stage)
    stage.begin_epoch = lambda: stage.classifier.eval()
    tiny.fit(stage, tiny.data(), max_steps=1)
    batch, net = steps[0]["batch"], tiny.classifier().eval()
    with torch.no_grad():
        p, rows = net(batch["image"]).softmax(1), torch.arange(24)
    best, second = p.topk(2, 1).values.T
    entropy = -p[rows, batch["label"]].log().mean()
    expected = entropy + 0.5 * (-best.log() - 2 * (1 - second).log()).mean()
    assert float(steps[0]["loss"]) == pytest.approx(expected.item(), rel=1e-3)


def test_only_the_layer_changes(suspect):
    stage = tiny.fit(NeuralPolarizer(suspect), tiny.data(), max_epochs=2)
    before = {f"classifier.{key}": value for key, value in tiny.tensors(tiny.classifier()).items()}
    after = {key.replace("conv1.1.", "conv1."): value for key, value in tiny.tensors(stage.result()).items()}
    assert before.keys() <= after.keys()
    assert not tiny.moved(before, after)
    assert all(".conv1.0." in key for key in after.keys() - before.keys())
    assert not torch.equal(stage.result().plug[0].weight.flatten(1), torch.eye(len(stage.result().plug[0].weight)))


def test_clean_accuracy_stays_and_the_backdoor_weakens():
    before = measured(open_bundle(trained()).build())
    after = measured(repaired(NeuralPolarizer(trained(), weight=1.5, steps=5, optimizer=fast), 15).result())
    assert min(before) > 0.9
    assert after[0] > 0.6
    assert after[1] < 0.4


def test_without_the_adversarial_terms_the_backdoor_stays():
    assert measured(repaired(NeuralPolarizer(trained(), weight=0.0, optimizer=fast), 5).result())[1] > 0.8


def test_resumed_run_equals_one_that_was_not_stopped(suspect, tmp_path):
    saver = ModelCheckpoint(tmp_path, "{epoch}", save_top_k=-1)
    straight = tiny.fit(
        NeuralPolarizer(suspect), tiny.data(), max_epochs=2, callbacks=[saver], enable_checkpointing=True
    )
    resumed = NeuralPolarizer(suspect)
    trainer = tiny.trainer(max_epochs=2, limit_val_batches=0)
    trainer.fit(resumed, tiny.data(), ckpt_path=tmp_path / "epoch=0.ckpt", weights_only=True)
    assert not tiny.moved(straight.state_dict(), resumed.state_dict())


def test_nothing_of_the_attack_reaches_it(suspect):
    assert not changed_by_the_attack(lambda: NeuralPolarizer(suspect))


@pytest.mark.parametrize("options", [{"weight": -1.0}, {"budget": 0.0}, {"steps": 0}])
def test_numbers_out_of_range_are_refused(options):
    with pytest.raises(ValueError, match=f"Expected {next(iter(options))}"):
        NeuralPolarizer("path", **options)
