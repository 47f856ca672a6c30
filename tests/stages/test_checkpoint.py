"""What is taken out of a checkpoint: what this run would have written, and no path."""

import copy

import pytest
import tiny
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint

from lit_backdoor.stages import PoisonedTraining


def callbacks(folder):
    stop = EarlyStopping("train/loss", patience=9, check_on_train_epoch_end=True)
    return [ModelCheckpoint(folder, "{epoch}", save_top_k=1), stop]


def fit(folder, path=None, **options):
    given = {"max_epochs": 3, "limit_val_batches": 0, "enable_checkpointing": True, "callbacks": callbacks(folder)}
    stage, trainer = PoisonedTraining(tiny.classifier()), tiny.trainer(**{**given, **options})
    trainer.fit(stage, tiny.data(), ckpt_path=path, weights_only=True)
    return stage, trainer


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A checkpoint of the first of three epochs, and the weights after all of them."""
    folder = tmp_path_factory.mktemp("written")
    saver = ModelCheckpoint(folder / "kept", "{epoch}", save_top_k=-1)
    stage, _ = fit(folder, callbacks=[saver, callbacks(folder)[1]])
    return torch.load(folder / "kept" / "epoch=0.ckpt", weights_only=True), tiny.tensors(stage)


def changed(written, change):
    checkpoint = copy.deepcopy(written[0])
    change(checkpoint)
    return checkpoint


def saved(checkpoint, tmp_path):
    torch.save(checkpoint, tmp_path / "given.ckpt")
    return tmp_path / "given.ckpt"


@pytest.mark.parametrize("place", ["beside", "inside", "folder", "protocol"])
def test_paths_in_a_checkpoint_are_never_removed(written, tmp_path, place):
    run = tmp_path / "run"
    run.mkdir()
    victim = (run if place == "inside" else tmp_path) / "thesis.ckpt"
    if place == "folder":
        victim.mkdir()
    (victim / "chapter.tex" if place == "folder" else victim).write_text("mine")
    text = f"{'file://' if place == 'protocol' else ''}{victim}"

    def plant(checkpoint):
        for key, state in checkpoint["callbacks"].items():
            if key.startswith("ModelCheckpoint"):
                state.update(best_model_path=text, last_model_path=text, kth_best_model_path=text, dirpath=str(run),
                             best_k_models={text: torch.tensor(1.0)})  # fmt: skip

    stage, trainer = fit(run, saved(changed(written, plant), tmp_path))
    assert victim.exists()
    assert text not in (trainer.checkpoint_callback.best_model_path, trainer.checkpoint_callback.last_model_path)
    assert not tiny.moved(written[1], tiny.tensors(stage))


def test_states_of_callbacks_are_taken_and_those_of_others_left(written, tmp_path):
    def other(checkpoint):
        checkpoint["callbacks"]["Nobody"] = {"path": "x"}
        [key] = [key for key in checkpoint["callbacks"] if key.startswith("EarlyStopping")]
        checkpoint["callbacks"][key]["wait_count"] = 2
        checkpoint["callbacks"][key]["best_score"] = torch.tensor(-1.0)

    _, trainer = fit(tmp_path / "run", saved(changed(written, other), tmp_path))
    assert trainer.early_stopping_callback.wait_count == 4  # two more without a better loss


def fit_loop(checkpoint):
    return checkpoint["loops"]["fit_loop"]


def early(checkpoint):
    return next(state for key, state in checkpoint["callbacks"].items() if key.startswith("EarlyStopping"))


def group(checkpoint):
    return checkpoint["optimizer_states"][0]["param_groups"][0]


WRONG = {
    "epoch as text": (lambda c: c.update(epoch="1"), "epoch of type int"),
    "epoch as bool": (lambda c: c.update(epoch=True), "epoch of type int"),
    "negative epoch": (lambda c: c.update(epoch=-1), "epoch not to be negative"),
    "negative step": (lambda c: c.update(global_step=-5), "global_step not to be negative"),
    "no loops": (lambda c: c.pop("loops"), "loops to be there"),
    "loops as list": (lambda c: c.update(loops=[]), "loops of type dict"),
    "other loops": (lambda c: c.update(loops={"fit_loop": {}}), "loops with the keys"),
    "negative count": (lambda c: fit_loop(c)["epoch_progress"]["current"].update(completed=-3), "not negative"),
    "count as text": (lambda c: fit_loop(c)["epoch_progress"]["current"].update(completed="x"), "a number"),
    "count as bool": (lambda c: fit_loop(c)["epoch_progress"]["total"].update(ready=True), "of type int"),
    "unknown part": (lambda c: c.update(extra=1), "nothing beside .* got 'extra'"),
    "state as list": (lambda c: c.update(state_dict=[1]), "state_dict of type dict"),
    "state of numbers": (lambda c: c.update(state_dict={"a": 1}), "to hold tensors by name"),
    "integers": (lambda c: c["state_dict"].update({K: c["state_dict"][K].int()}), "of type torch.float32"),
    "complex": (lambda c: c["state_dict"].update({K: c["state_dict"][K].cfloat()}), "of type torch.float32"),
    "NaN": (lambda c: c["state_dict"][K].fill_(torch.nan), "to be finite"),
    "callbacks as list": (lambda c: c.update(callbacks=[1]), "callbacks of type dict"),
    "callback's type": (lambda c: early(c).update(wait_count="x"), "a number"),
    "callback's key": (lambda c: early(c).pop("patience"), "with the keys of this run"),
    "no optimizer": (lambda c: c.update(optimizer_states=[]), "optimizer_states to be 1"),
    "optimizers as dict": (lambda c: c.update(optimizer_states={}), "optimizer_states of type list"),
    "optimizer as text": (lambda c: c.update(optimizer_states=["x"]), "to hold 'state' and 'param_groups'"),
    "rate as text": (lambda c: group(c).update(lr="x"), "a number"),
    "negative rate": (lambda c: group(c).update(lr=-0.1), "not negative"),
    "rate NaN": (lambda c: group(c).update(lr=float("nan")), "finite"),
    "parameters": (lambda c: group(c).update(params=[0]), "values"),
    "momentum's shape": (lambda c: c["optimizer_states"][0]["state"][0].update(momentum_buffer=torch.ones(1)), "shape"),
    "momentum's type": (lambda c: c["optimizer_states"][0]["state"][0].update(momentum_buffer="x"), "shape"),
    "momentum is missing": (lambda c: c["optimizer_states"][0]["state"][0].clear(), "with the keys of this run .momentum"),
    "momentum's name": (lambda c: c["optimizer_states"][0]["state"][0].update(speed=1.0), "with the keys of this run"),
    "scheduler's type": (lambda c: c.update(lr_schedulers=["x"]), "with the keys of this run"),
    "scheduler's key": (lambda c: c["lr_schedulers"][0].update(step=1), "with the keys of this run"),
    "scheduler's count": (lambda c: c["lr_schedulers"][0].update(last_epoch=-7), "not negative"),
    "bytes": (lambda c: c["lit_backdoor"].update(x=b"x"), "tensors and plain values only, got bytes"),
    "set": (lambda c: early(c).update(wait_count={1}), "tensors and plain values only, got set"),
    "deep": (lambda c: c["lit_backdoor"].update(x=nested(60)), "levels deep"),
    "weights only": (lambda c: c.pop("optimizer_states"), "optimizer_states to be there"),
}  # fmt: skip
K = "classifier.net.conv1.weight"


def nested(depth):
    return [nested(depth - 1)] if depth else []


@pytest.mark.parametrize("name", WRONG)
def test_part_of_another_kind_is_named(written, tmp_path, name):
    change, says = WRONG[name]
    with pytest.raises(ValueError, match=says):
        fit(tmp_path / "run", saved(changed(written, change), tmp_path))


@pytest.mark.parametrize("optimizer", [torch.optim.Adam, torch.optim.AdamW, torch.optim.RMSprop, torch.optim.Adafactor])
def test_every_optimizer_s_own_state_is_taken(tmp_path, optimizer):
    def run(folder, path=None):
        stage = PoisonedTraining(tiny.classifier(), lambda parameters: optimizer(parameters, lr=0.01))
        saver = ModelCheckpoint(folder, "{epoch}", save_top_k=-1)
        trainer = tiny.trainer(max_epochs=2, limit_val_batches=0, enable_checkpointing=True, callbacks=[saver])
        trainer.fit(stage, tiny.data(), ckpt_path=path, weights_only=True)
        return tiny.tensors(stage)

    straight = run(tmp_path)
    assert not tiny.moved(straight, run(tmp_path / "again", tmp_path / "epoch=0.ckpt"))


@pytest.mark.parametrize(
    ("optimizer", "change", "says"),
    [
        (torch.optim.AdamW, lambda state: state.pop("exp_avg_sq"), "with the keys of this run .step, exp_avg, exp_avg_sq"),
        (torch.optim.Adam, lambda state: state.pop("step"), "with the keys of this run .step"),
        (torch.optim.Adafactor, lambda state: state.update(row_var=torch.ones(2)), "row_var.* a tensor of shape"),
    ],
)  # fmt: skip
def test_optimizer_s_state_has_what_its_step_keeps(tmp_path, optimizer, change, says):
    def run(folder, path=None):
        stage = PoisonedTraining(tiny.classifier(), lambda parameters: optimizer(parameters, lr=0.01))
        saver = ModelCheckpoint(folder, "{epoch}", save_top_k=-1)
        trainer = tiny.trainer(max_epochs=2, limit_val_batches=0, enable_checkpointing=True, callbacks=[saver])
        trainer.fit(stage, tiny.data(), ckpt_path=path, weights_only=True)

    run(tmp_path)
    checkpoint = torch.load(tmp_path / "epoch=0.ckpt", weights_only=True)
    change(checkpoint["optimizer_states"][0]["state"][0])
    with pytest.raises(ValueError, match=says):
        run(tmp_path / "again", saved(checkpoint, tmp_path))


def test_checkpoint_from_the_middle_of_an_epoch_is_not_trained_on_but_tested(tmp_path):
    saver = ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=1, save_top_k=-1)
    fit(tmp_path, callbacks=[saver], max_epochs=1)
    with pytest.raises(ValueError, match=r"from the middle of epoch 0, after 2 batches"):
        fit(tmp_path / "run", tmp_path / "step=2.ckpt")
    assert tiny.tested(
        PoisonedTraining(tiny.classifier()),
        tiny.data(tiny.attack()),
        ckpt_path=tmp_path / "step=2.ckpt",
        weights_only=True,
    )
