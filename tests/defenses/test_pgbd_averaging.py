"""Weights that are averaged over the last epochs' steps."""

import pytest
import tiny
import torch
from pgbd_parts import fast, run

from lit_backdoor.bundle import open_bundle
from lit_backdoor.defenses.pgbd import PGBD


def test_weights_are_averaged_over_the_last_epochs_steps(tmp_path):
    steps = []

    class Keep(tiny.pl.Callback):
        def on_train_batch_end(self, trainer, module, *args):
            steps.append(module.classifier.net.conv1.weight.detach().clone())

    data = tiny.data(batch_size=8)
    stage = run(PGBD(tiny.classifier(), 2, optimizer=fast, average=2), 4, data, callbacks=[Keep()])
    assert len(steps) == 12
    expected = torch.stack(steps[6:]).mean(0)
    torch.testing.assert_close(stage.result().net.conv1.weight, expected)
    stage.export(tmp_path / "suspect")
    handed_on = open_bundle(tmp_path / "suspect", "suspect").build()
    images = torch.rand(2, 3, tiny.SIZE, tiny.SIZE)
    torch.testing.assert_close(handed_on(images), stage.eval()(images))
    last = run(PGBD(tiny.classifier(), 2, optimizer=fast, average=0), 4, tiny.data(batch_size=8))
    torch.testing.assert_close(last.outcome().module.net.conv1.weight, steps[-1])


def test_second_run_of_a_stage_begins_a_new_average():
    stage = PGBD(tiny.classifier(), 2, optimizer=fast)
    run(stage, 1)
    run(stage, 1)
    assert stage.mean.n_averaged == 1
    for mean, last in zip(stage.result().parameters(), stage.classifier.parameters(), strict=True):
        torch.testing.assert_close(mean, last)


def test_run_that_ends_before_its_last_epochs_is_said():
    with pytest.warns(UserWarning, match="ended before the last 1 of 5 epochs"):
        run(PGBD(tiny.classifier(), 2, optimizer=fast), 5, max_steps=2)


def test_average_needs_a_last_epoch():
    with pytest.raises(ValueError, match="max_epochs to be set: weights are averaged over the last ones"):
        run(PGBD(tiny.classifier(), 0), -1, max_steps=2)


def test_negative_average_is_refused():
    with pytest.raises(ValueError, match="average to be 0 or more epochs, got -1"):
        PGBD(tiny.classifier(), 0, average=-1)


def test_weights_are_averaged_over_steps_where_several_batches_make_one():
    steps = {}

    class Keep(tiny.pl.Callback):
        def on_train_batch_end(self, trainer, module, *args):
            steps[trainer.global_step] = module.classifier.net.conv1.weight.detach().clone()

    data = tiny.data(batch_size=4)
    stage = run(PGBD(tiny.classifier(), 2, optimizer=fast), 2, data, callbacks=[Keep()], accumulate_grad_batches=4)
    expected = (steps[3] + steps[4]) / 2  # two steps an epoch, of four batches and of two
    torch.testing.assert_close(stage.result().net.conv1.weight, expected)
