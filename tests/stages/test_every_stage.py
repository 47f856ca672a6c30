"""What holds for every stage of the package; a new one is found by being there."""

import importlib
import inspect
import pickle
import pkgutil

import pytest
import tiny
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

import lit_backdoor
from lit_backdoor.bundle import open_bundle
from lit_backdoor.models import Purified
from lit_backdoor.recipe import arguments_of
from lit_backdoor.stages import Evaluation, Stage
from lit_backdoor.stages.testing import TESTED

SHORT = {"rounds": 1, "unlearn_epochs": 1, "purify_epochs": 1, "images_at_once": 64}


def stages():
    """Every stage that can be run, by name: those of the package without an abstract method."""
    for info in pkgutil.walk_packages(lit_backdoor.__path__, "lit_backdoor."):
        if info.name.split(".")[1] in ("stages", "attacks", "defenses"):
            for name, found in vars(importlib.import_module(info.name)).items():
                if inspect.isclass(found) and issubclass(found, Stage) and found.__module__ == info.name:
                    abstract = any(
                        getattr(getattr(found, key, None), "__isabstractmethod__", False) for key in dir(found)
                    )
                    if not abstract and _says_what(found):
                        yield name, found


def _says_what(cls):
    """Whether a class is more than a role: a base does not say what it makes."""
    return cls.outcome is not Stage.outcome or cls.result is not Stage.result


FOUND = {name: cls for name, cls in stages() if cls.kind is not None and name != "Mitigation"}
FIT = [name for name, cls in FOUND.items() if cls.verb == "fit"]


def made(name, victim, folder):
    """Make a stage of its required arguments, which say by their names what they are."""
    weights = folder / "weights.pth"
    torch.save(tiny.classifier().state_dict(), weights)
    given = {
        "suspect": victim,
        "classifier": tiny.classifier(),
        "generator": tiny.unet(),
        "trigger": tiny.unet(),
        "target": 2,
        "purified": Purified(tiny.unet(), tiny.classifier()),
        "weights": str(weights),
    }
    cls = FOUND[name]
    required = [
        key
        for owner in cls.__mro__
        if "__init__" in vars(owner)
        for key, parameter in inspect.signature(owner.__init__).parameters.items()
        if parameter.default is parameter.empty and key in given
    ]
    if name == "StampedUnlearning":  # its mask is what an inversion gives
        given["generator"] = tiny.attack().trigger
    taken = arguments_of(cls)
    options = {key: value for key, value in SHORT.items() if key in taken}
    return cls(**{key: given[key] for key in required if key in taken}, **options)


def data(selection):
    return tiny.data(tiny.attack(), suspicious=selection)


def epochs(stage):
    return stage.planned_epochs or 2


def test_the_walk_finds_stages_of_every_room():
    assert {"FineTune", "PoisonedTraining", "LowestLoss", "PGBD", "TACPruning", "BTIDBFUnlearning"} <= FOUND.keys()


@pytest.mark.parametrize("name", FOUND)
def test_stage_goes_to_another_process(name, victim, tmp_path):
    stage = made(name, victim, tmp_path)
    assert type(pickle.loads(pickle.dumps(stage))) is type(stage)


@pytest.mark.parametrize("name", FIT)
def test_fit_resumes_at_an_epochs_end_and_its_bundle_is_tested(name, victim, selection, tmp_path):
    straight = made(name, victim, tmp_path)
    saver = ModelCheckpoint(tmp_path, "{epoch}", save_top_k=-1)
    short = {"limit_train_batches": 2, "max_epochs": epochs(straight)}
    tiny.fit(straight, data(selection), callbacks=[saver], enable_checkpointing=True, **short)
    torch.manual_seed(12345)  # whatever was drawn before must not matter
    resumed, trainer = made(name, victim, tmp_path), tiny.trainer(limit_val_batches=0, **short)
    trainer.fit(resumed, data(selection), ckpt_path=tmp_path / "epoch=0.ckpt", weights_only=True)
    one, two = straight.state_dict(), resumed.state_dict()
    assert one.keys() == two.keys()
    assert not [key for key in one if not torch.equal(one[key].nan_to_num(), two[key].nan_to_num())]
    resumed.export(tmp_path / "bundle")
    bundle = open_bundle(tmp_path / "bundle", type(straight).kind)
    assert bundle.kind in TESTED
    tested = tiny.tested(Evaluation(str(bundle.path)), data(selection))
    assert all(tested[key] == value for key, value in tiny.tested(resumed, data(selection)).items())


@pytest.mark.parametrize("name", [name for name in FOUND if name not in FIT])
def test_stage_that_predicts_leaves_a_bundle_that_is_tested(name, victim, selection, tmp_path):
    stage = made(name, victim, tmp_path)
    trainer = tiny.trainer(default_root_dir=tmp_path)
    trainer.predict(stage, datamodule=data(selection), return_predictions=False)
    stage.export(tmp_path / "bundle")
    assert tiny.tested(Evaluation(str(tmp_path / "bundle")), data(selection))
