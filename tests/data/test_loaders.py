import pytest
import tiny
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from lit_backdoor.data.loaders import load
from lit_backdoor.data.samplers import ViewSampler
from lit_backdoor.stages import PoisonedTraining


def rows(loader):
    return [batch["index"].tolist() for batch in loader]


def loader(data, workers, epoch=0):
    data.num_workers = workers
    made = data.loader("train")
    made.sampler.set_epoch(epoch)
    return made


def test_rows_of_an_epoch_do_not_depend_on_workers(data):
    want = [rows(loader(data, 0, epoch)) for epoch in range(3)]
    assert want[0] != want[1]
    for workers in (1, 2, 4):
        made = loader(data, workers)
        for epoch in range(3):  # by the same workers
            made.sampler.set_epoch(epoch)
            assert rows(made) == want[epoch]


@pytest.mark.parametrize("workers", [0, 2])
def test_epoch_may_be_set_after_the_iterator_is_made(data, workers):
    made = loader(data, workers)
    iterator = iter(made)
    made.sampler.set_epoch(2)
    assert rows(iterator) == rows(loader(data, 0, 2))


@pytest.mark.parametrize("workers", [0, 1])
def test_rest_of_an_epoch(data, workers):
    whole = rows(loader(data, 0, 1))
    resumed = loader(data, workers, 1)
    resumed.done = lambda: 3
    assert rows(resumed) == whole[3:]
    resumed.done = None
    assert rows(resumed) == whole


def test_start_within_a_later_pass():
    draws = [draw.rows.tolist() for draw in ViewSampler(10, 2, shuffle=True, steps=14)]
    sampler = ViewSampler(10, 2, shuffle=True, steps=14)
    sampler.start = 8
    assert [draw.rows.tolist() for draw in sampler] == draws[8:]
    assert [draw.rows.tolist() for draw in sampler] == draws


class Broken(torch.utils.data.Dataset):
    def __getitem__(self, draw):
        raise ValueError("'a.png': not a readable image. Replace or remove it.")


@pytest.mark.parametrize("workers", [0, 1])
def test_error_of_a_worker_is_told_in_its_own_words(workers):
    with pytest.raises(ValueError, match=r"^'a.png': not a readable image. Replace or remove it.$"):
        next(iter(load(Broken(), ViewSampler(4, 2), workers)))


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 1, 2])
@pytest.mark.parametrize("file", ["epoch=0-step=3.ckpt", "epoch=1-step=6.ckpt"])
def test_resumed_run_equals_one_that_was_not_stopped(workers, file, tmp_path):
    """At epochs' ends; three steps an epoch."""

    def run(folder, ckpt=None):
        stage, data = PoisonedTraining(tiny.classifier()), tiny.data(tiny.attack(), num_workers=workers)
        saver = ModelCheckpoint(folder, every_n_train_steps=1, save_top_k=-1)
        tiny.trainer(max_epochs=3, limit_val_batches=0, enable_checkpointing=True, callbacks=[saver]).fit(
            stage, data, ckpt_path=ckpt, weights_only=True
        )
        return stage.state_dict()

    straight = run(tmp_path / "a")
    resumed = run(tmp_path / "b", tmp_path / "a" / file)
    assert all(torch.equal(straight[key], resumed[key]) for key in straight)
