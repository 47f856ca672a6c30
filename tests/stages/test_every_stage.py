"""What holds for every stage of the package; a new one is found by being there."""

import pickle
from contextlib import nullcontext

import pytest
import tiny
import torch
from device_watch import watched
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.plugins import MixedPrecision
from torch import nn
from walk_parts import DEFENSES, FIT, PREDICT, STAGES, data, epochs, made, trained, trial_data

from lit_backdoor.bundle import open_bundle
from lit_backdoor.errors import DivergedError
from lit_backdoor.models import Frozen
from lit_backdoor.recipe import arguments_of
from lit_backdoor.stages import Evaluation
from lit_backdoor.stages.testing import TESTED

SHORT = {"limit_train_batches": 2}
SEARCH = {
    "ANP",
    "NeuralCleanse",
    "SAMFineTune",
    "SharedAdversarialUnlearning",
    "StampPGBD",
}  # take gradients themselves
every_stage = pytest.mark.parametrize("name", FIT)


DRAWN = "draws on the CPU, so that all devices draw the same; only the draws are copied"
ROWS = "takes those rows of a batch that the paper's loss is about"
ON_PURPOSE = {  # what a step reads from the device or makes elsewhere, and why
    "data/augment.py:CropFlip.__call__": DRAWN,
    "defenses/atclean/generator.py:CollisionGenerator.losses": DRAWN,
    "defenses/februus/purification.py:drawn_holes": DRAWN,
    "functional/decoupling.py:occlusions": DRAWN,
    "functional/decoupling.py:pieces": DRAWN,
    "functional/decoupling.py:replace_share": DRAWN,
    "functional/mixtures.py:mixtures": DRAWN,
    "functional/worst_stamp.py:_grid": DRAWN,
    "functional/worst_stamp.py:_window": DRAWN,
    "functional/worst_stamp.py:random_window": DRAWN,
    "functional/worst_stamp.py:worst_stamp": DRAWN,
    "models/patterned.py:LocalPattern.varied": DRAWN,
    "defenses/btidbf/fresh_unlearning.py:BTIDBFFreshUnlearning.unlearned": DRAWN,
    "defenses/btidbf/varied_purification.py:BTIDBFVariedPurification.triggered": DRAWN,
    "stages/unlearning.py:StampedUnlearning.mixed": DRAWN,
    "attacks/combat.py:COMBATTraining.losses": ROWS,
    "attacks/ml_mmdr.py:MultiLevelMMDTraining.gap": ROWS,
    "attacks/ml_mmdr.py:MultiLevelMMDTraining.gap.<locals>.<listcomp>": ROWS,
    "defenses/abl/training.py:ABLTraining.losses": ROWS,
    "defenses/abl/training.py:ABLUnlearning.losses": ROWS,
    "defenses/btidbf/adaptive.py:BTIDBFAdaptiveTraining.losses.<locals>.<dictcomp>": ROWS,
    "defenses/martini/hardening.py:MartiniHardening.harden": ROWS,
    "defenses/martini/reconstructing.py:Reconstructing.reconstruct": ROWS,
    "defenses/mcr/repair.py:ModeConnectivityRepair.losses": ROWS,
    "defenses/moth/hardening.py:Orthogonalization.losses": ROWS,
    "defenses/none/retraining.py:NeuronReset.losses": ROWS,
    "defenses/februus/purification.py:Februus.losses": ROWS,
    "stages/feature_inversion.py:FeatureInversion.losses": ROWS,
    "stages/mask_pruning.py:MaskPruning.losses": ROWS,
    "defenses/martini/reconstructing.py:Reconstructing._judge": "decides by each step's success, as the paper does",
    "defenses/martini/reconstructing.py:Reconstructing.aim": "the round's classes are part of a checkpoint",
    "defenses/unicorn/inversion.py:Unicorn.tried": "the classes that go on follow from what a checkpoint holds",
    "functional/martini.py:ssim_loss": "kornia makes its window on the CPU and copies it",
    "data/views.py:View.__post_init__": "once, when the view is made",
    "data/views.py:_clean": "once, when the view is made",
    "data/views.py:selected_view": "once, when the view is made",
    "triggers/inputs.py:check_images.<locals>.<genexpr>": "looks at the first batch only, if not on the CPU",
    "triggers/patch.py:Patch._color": "once; the pattern is kept on the device",
}


class Run:
    """A stage that was trained straight through, with a checkpoint at each epoch's end and at its last step."""

    def __init__(self, name, victim, selection, folder):
        self.folder = folder
        self.stage = made(name, victim, folder)
        self.epochs = epochs(self.stage)
        ends = ModelCheckpoint(folder / "ends", "{epoch}", save_top_k=-1)
        last = ModelCheckpoint(folder / "last", "{epoch}-{step}", every_n_train_steps=1, save_top_k=-1)
        trainer = tiny.trainer(max_epochs=self.epochs, limit_val_batches=0, enable_checkpointing=True,
                               callbacks=[ends, last], **SHORT)  # fmt: skip
        with watched(self.stage) as self.seen:
            trainer.fit(self.stage, data(name, selection))
        self.end = folder / "ends" / "epoch=0.ckpt"
        self.final = folder / "ends" / f"epoch={self.epochs - 1}.ckpt"
        self.last_step = max((folder / "last").glob("epoch=0-*"), key=lambda p: int(p.stem.rpartition("=")[2]))


@pytest.fixture(scope="module")
def run(victim, selection, tmp_path_factory):
    kept = {}

    def start(name):
        if name not in kept:
            kept[name] = Run(name, victim, selection, tmp_path_factory.mktemp(name))
        return kept[name]

    return start


def assert_equal(one, two):
    one, two = one.state_dict(), two.state_dict()
    assert one.keys() == two.keys()
    assert not [key for key in one if not torch.equal(one[key].nan_to_num(), two[key].nan_to_num())]


def test_the_walk_finds_stages_of_every_room():
    assert {"FineTune", "PoisonedTraining", "LIRATraining", "PGBD", "TACFineTune", "BTIDBFUnlearning"} <= set(FIT)
    assert {"LowestLoss", "TACPruning", "TACDetection", "ImportedSuspect", "UntrainedGenerator"} <= set(PREDICT)
    assert not {"Mitigation", "Unlearning", "Pruning", "Phased", "TargetDetection"} & set(STAGES)


@pytest.mark.parametrize("name", STAGES)
def test_stage_goes_to_another_process(name, victim, tmp_path):
    stage = made(name, victim, tmp_path)
    assert type(pickle.loads(pickle.dumps(stage))) is type(stage)


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.slow)])
@every_stage
def test_run_resumed_at_an_epochs_end_equals_one_that_was_not_stopped(name, workers, victim, selection, run, tmp_path):
    straight = run(name)
    torch.manual_seed(12345)  # whatever was drawn before must not matter
    resumed, trainer = (
        made(name, victim, tmp_path),
        tiny.trainer(max_epochs=straight.epochs, limit_val_batches=0, **SHORT),
    )
    datamodule = data(name, selection, num_workers=workers)
    trainer.fit(resumed, datamodule, ckpt_path=straight.end, weights_only=True)
    assert_equal(straight.stage, resumed)


@pytest.mark.slow
@every_stage
def test_run_resumed_at_an_epochs_last_step_equals_one_that_was_not_stopped(name, victim, selection, run, tmp_path):
    """Lightning then leaves the hook of the next epoch's start out."""
    straight = run(name)
    resumed, trainer = (
        made(name, victim, tmp_path),
        tiny.trainer(max_epochs=straight.epochs, limit_val_batches=0, **SHORT),
    )
    trainer.fit(resumed, data(name, selection), ckpt_path=straight.last_step, weights_only=True)
    assert_equal(straight.stage, resumed)


@pytest.mark.slow
@every_stage
def test_bundle_is_tested_like_the_stage_and_its_checkpoint(name, victim, selection, run, tmp_path):
    straight = run(name)
    straight.stage.export(tmp_path / "bundle")
    bundle = open_bundle(tmp_path / "bundle", STAGES[name].kind)
    assert bundle.kind in TESTED
    datamodule = trial_data(name, selection, bundle.path)
    tested = tiny.tested(Evaluation(str(bundle.path)), datamodule)
    own = tiny.tested(straight.stage, datamodule)
    assert tested
    assert all(tested[key] == pytest.approx(value, nan_ok=True, abs=0) for key, value in own.items())
    again = tiny.tested(
        made(name, victim, tmp_path), data(name, selection), ckpt_path=straight.final, weights_only=True
    )
    assert again == pytest.approx(own, nan_ok=True, abs=0)


@pytest.mark.parametrize("name", PREDICT)
def test_bundle_of_a_stage_that_predicts_is_tested(name, victim, selection, tmp_path):
    stage = made(name, victim, tmp_path)
    tiny.trainer().predict(stage, data(name, selection), return_predictions=False)
    stage.export(tmp_path / "bundle")
    assert open_bundle(tmp_path / "bundle", STAGES[name].kind).kind in TESTED
    assert tiny.tested(Evaluation(str(tmp_path / "bundle")), trial_data(name, selection, tmp_path / "bundle"))


@every_stage
def test_step_neither_reads_from_the_device_nor_makes_tensors_elsewhere(name, run):
    found = [place for place in run(name).seen if place.partition(": ")[0] not in ON_PURPOSE]
    assert not found, "\n".join(["Give tensors a device and read no numbers in a step, or say why:", *found])


@pytest.mark.slow
@every_stage
def test_training_moves_weights(name, victim, selection, tmp_path):
    stage, moved = made(name, victim, tmp_path), set()

    class Watch(Callback):
        def on_train_batch_start(self, trainer, module, batch, batch_idx):
            self.before = [p.detach().clone() for p in trained(module)]

        def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
            moved.update(k for k, p in enumerate(trained(module)) if not torch.equal(p, self.before[k]))

    tiny.fit(stage, data(name, selection), max_epochs=epochs(stage), callbacks=[Watch()], **SHORT)
    assert moved


@every_stage
def test_checkpoint_holds_plain_tensors_without_frozen_nets(name, run):
    straight = run(name)
    checkpoint = torch.load(straight.end, weights_only=True)
    assert checkpoint["lit_backdoor"]["stage"].endswith(f".{name}")
    assert "hyper_parameters" not in checkpoint
    frozen = tuple(f"{key}." for key, module in straight.stage.named_modules() if isinstance(module, Frozen))
    assert not [key for key in checkpoint["state_dict"] if key.startswith(frozen)]
    for module in straight.stage.modules():
        if isinstance(module, Frozen):
            assert not module.module.training
            assert not any(weight.requires_grad or weight.grad is not None for weight in module.parameters())


@pytest.mark.slow
@every_stage
def test_checkpoint_of_another_stage_is_refused(name, victim, selection, run, tmp_path):
    other = "PoisonedTraining" if name == "FineTune" else "FineTune"
    stage, checkpoint = made(name, victim, tmp_path), run(other).end
    trainer = tiny.trainer(max_epochs=epochs(stage))
    with pytest.raises(ValueError, match=rf"Expected a checkpoint of .*\.{name}, got one of .*\.{other}\."):
        trainer.fit(stage, data(name, selection), ckpt_path=checkpoint, weights_only=True)


@pytest.mark.slow
@every_stage
def test_weights_that_were_never_trained_are_not_used(name, victim, selection, tmp_path):
    for verb in ("test", "validate", "predict"):
        with pytest.raises(ValueError, match="has no trained weights here"):
            getattr(tiny.trainer(), verb)(made(name, victim, tmp_path), data(name, selection))


class Spoil(Callback):
    """Makes what is trained useless in the last epoch."""

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        if trainer.current_epoch == trainer.max_epochs - 1:
            with torch.no_grad():
                for weight in trained(module):
                    weight.fill_(float("nan"))


@pytest.mark.slow
@every_stage
def test_nan_loss_stops_and_keeps_the_last_good_checkpoint(name, victim, selection, tmp_path):
    stage = made(name, victim, tmp_path)
    last, saver = max(epochs(stage), 1) - 1, ModelCheckpoint(tmp_path, "{epoch}")
    with pytest.raises(DivergedError, match=f"epoch {last}, step"):
        tiny.fit(stage, data(name, selection), max_epochs=last + 1, callbacks=[Spoil(), saver],
                 enable_checkpointing=True, **SHORT)  # fmt: skip
    assert [kept.name for kept in tmp_path.glob("*.ckpt")] == [f"epoch={last - 1}.ckpt"] * (last > 0)
    for kept in tmp_path.glob("*.ckpt"):
        state = torch.load(kept, weights_only=True)["state_dict"]
        assert all(state[key].isfinite().all() for key, _ in stage.named_parameters() if key in state)


@pytest.mark.slow
@every_stage
def test_bf16_mixed_trains_and_keeps_float_weights(name, victim, selection, tmp_path):
    stage = made(name, victim, tmp_path)
    tiny.fit(stage, data(name, selection), precision="bf16-mixed", max_epochs=epochs(stage), **SHORT)
    for weight in trained(stage):
        assert weight.dtype == torch.float32
        assert weight.isfinite().all()


class Scaled(MixedPrecision):
    """Loss scaling as 16-mixed has it, without half precision: a power of two changes no bit of a float32 number."""

    def __init__(self):
        super().__init__("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=2.0**10))

    def autocast_context_manager(self):
        return nullcontext()


@pytest.mark.parametrize(
    "name", [name if name in SEARCH else pytest.param(name, marks=pytest.mark.slow) for name in FIT]
)
def test_loss_scaling_changes_no_weight(name, victim, selection, run, tmp_path):
    """What a search takes by itself, such as the slope of a trigger, must not be scaled, or unscaled, with the loss."""
    stage = made(name, victim, tmp_path)
    tiny.fit(stage, data(name, selection), max_epochs=epochs(stage), plugins=[Scaled()], **SHORT)
    assert_equal(run(name).stage, stage)


@pytest.mark.slow
@pytest.mark.parametrize("name", DEFENSES)
def test_defender_does_not_know_the_attack(name, victim, selection, run, tmp_path):
    """Without triggered loader, poison flags and target the weights are bit-equal."""
    ignorant = data(name, selection)
    ignorant.setup()
    poisoned = ignorant.images(next(iter(ignorant.loader("suspicious"))))
    for view in [v for v in ignorant._views if v != "triggered"]:
        ignorant._views[view].role.zero_()
        ignorant._views[view].clean_label.copy_(ignorant._views[view].label)
    del ignorant._views["triggered"]
    stamped = {int(i): image for i, image in zip(poisoned["index"], poisoned["image"], strict=True)}
    original = ignorant.images

    # the data as the defender holds it: images that are stamped already, under the labels they came with
    def images(batch, training=False):
        finished = original({k: v for k, v in batch.items() if k not in ("poison_rows", "cover_rows")}, training)
        if finished["view"] == "suspicious":
            finished["image"] = torch.stack([stamped[int(i)] for i in finished["index"]])
        return finished

    ignorant.images = images
    ignorant.attack = None
    stage = made(name, victim, tmp_path)
    tiny.fit(stage, ignorant, max_epochs=epochs(stage), **SHORT)
    assert_equal(run(name).stage, stage)


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["eval", "train"])
@pytest.mark.parametrize("name", [name for name in FIT if "batch_norm" in arguments_of(STAGES[name])])
def test_norms_follow_the_policy(name, policy, victim, selection, tmp_path):
    stage = made(name, victim, tmp_path, batch_norm=policy)
    before = tiny.tensors(open_bundle(victim).build())
    tiny.fit(stage, data(name, selection), max_epochs=epochs(stage), **SHORT)
    running = {key for key in tiny.moved(before, tiny.tensors(stage.classifier)) if "running_" in key}
    norms = [module for module in stage.classifier.modules() if isinstance(module, nn.BatchNorm2d)]
    assert len(running) == (0 if policy == "eval" else 2 * len(norms))
