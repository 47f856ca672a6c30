"""What holds for every stage that is trained."""

import pytest
import tiny
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from torch import nn

from lit_backdoor.attacks import MultiLevelMMDTraining
from lit_backdoor.data import CropFlip
from lit_backdoor.defenses.atclean import CollisionGenerator, DetectorFreeGenerator
from lit_backdoor.defenses.fst import FeatureShiftTuning
from lit_backdoor.defenses.ft_sam import SAMFineTune
from lit_backdoor.defenses.i_bau import ImplicitUnlearning
from lit_backdoor.defenses.pgbd import NTPGBD, PGBD, STPGBD, Geometry
from lit_backdoor.defenses.sau import SharedAdversarialUnlearning
from lit_backdoor.defenses.seam import SelectiveAmnesia
from lit_backdoor.defenses.tac import TACFineTune, TACMovementFineTune, TACStampFineTune
from lit_backdoor.errors import DivergedError
from lit_backdoor.models import Frozen
from lit_backdoor.stages import (
    FineTune,
    FloodingTraining,
    LocalGradientAscentTraining,
    PoisonedTraining,
    StampedUnlearning,
    StampSearch,
    UnlearningFineTune,
)
from lit_backdoor.triggers import Blend, MaskedPattern

EPOCHS = 3


def fast(parameters):
    return torch.optim.SGD(parameters, lr=0.01, momentum=0.9)


STAGES = {
    "PoisonedTraining": lambda v: PoisonedTraining(tiny.classifier()),
    "LocalGradientAscentTraining": lambda v: LocalGradientAscentTraining(tiny.classifier()),
    "FloodingTraining": lambda v: FloodingTraining(tiny.classifier()),
    "MultiLevelMMDTraining": lambda v: MultiLevelMMDTraining(tiny.classifier()),
    "FineTune": lambda v: FineTune(v, schedule="cosine"),
    "UnlearningFineTune": lambda v: UnlearningFineTune(v, tiny.unet()),
    "UnlearningByTrigger": lambda v: UnlearningFineTune(v, Blend()),
    "StampedUnlearning": lambda v: StampedUnlearning(
        v, MaskedPattern.holding(torch.ones(1, 16, 16), torch.ones(3, 16, 16))
    ),
    "CollisionGenerator": lambda v: CollisionGenerator(v, tiny.unet(), layers=2),
    "TACFineTune": lambda v: TACFineTune(v, 2),
    "TACMovementFineTune": lambda v: TACMovementFineTune(v, 2, refresh=True),
    "TACStampFineTune": lambda v: TACStampFineTune(v, 2, search=StampSearch(steps=2)),
    "DetectorFreeGenerator": lambda v: DetectorFreeGenerator(v, tiny.unet(), layers=2),
    "PGBD": lambda v: PGBD(v, 0, geometry=Geometry(update=1, smoothed="both"), optimizer=fast, head="tuned"),
    "NTPGBD": lambda v: NTPGBD(v, optimizer=fast, head="tuned", search=StampSearch(steps=2)),
    "SAMFineTune": lambda v: SAMFineTune(v),
    "FeatureShiftTuning": lambda v: FeatureShiftTuning(v),
    "SharedAdversarialUnlearning": lambda v: SharedAdversarialUnlearning(v, steps=2),
    "ImplicitUnlearning": lambda v: ImplicitUnlearning(v, search_passes=1, iterations=1),
    "SelectiveAmnesia": lambda v: SelectiveAmnesia(v, forget_epochs=1),
    "STPGBD": lambda v: STPGBD(v, tiny.unet(), geometry=Geometry(update=1), optimizer=fast, head="tuned"),
}
every_stage = pytest.mark.parametrize("name", STAGES)


def made(name, victim):
    """Make a stage; whatever it draws on being made is drawn from another seed each time."""
    return STAGES[name](victim)


def data(selection, **options):
    return tiny.data(tiny.attack(), suspicious=selection, augment=CropFlip(2), **options)


def trained_net(stage):
    return stage.generator if hasattr(stage, "generator") and stage.kind == "generator" else stage.classifier


@pytest.fixture(scope="module")
def runs(victim, selection, tmp_path_factory):
    """Each stage trained straight through, with a checkpoint of every epoch."""
    made_runs = {}

    def run(name):
        if name not in made_runs:
            folder = tmp_path_factory.mktemp(name)
            stage = made(name, victim)
            stage.configure_model()
            start = tiny.tensors(trained_net(stage))
            saver = ModelCheckpoint(folder, "{epoch}", save_top_k=-1)
            tiny.fit(stage, data(selection), max_epochs=EPOCHS, callbacks=[saver], enable_checkpointing=True)
            made_runs[name] = folder, start, stage
        return made_runs[name]

    return run


@every_stage
def test_resumed_run_equals_one_that_was_not_stopped(name, victim, selection, runs):
    folder, start, straight = runs(name)
    torch.manual_seed(12345)  # whatever was drawn before must not matter
    resumed = made(name, victim)
    trainer = tiny.trainer(max_epochs=EPOCHS, limit_val_batches=0)
    trainer.fit(resumed, datamodule=data(selection), ckpt_path=folder / "epoch=0.ckpt", weights_only=True)
    one, two = straight.state_dict(), resumed.state_dict()
    assert one.keys() == two.keys()
    assert all(torch.equal(one[key], two[key]) for key in one)
    parameters = {key for key, _ in trained_net(straight).named_parameters()}
    still = parameters - tiny.moved(start, tiny.tensors(trained_net(straight)))
    assert not still, f"never trained: {still}"


@pytest.mark.parametrize("name", ["FineTune", "TACMovementFineTune", "PGBD", "NTPGBD", "STPGBD", "eval"])
def test_run_resumed_at_an_epoch_s_last_step_equals_one_that_was_not_stopped(name, victim, selection, tmp_path):
    """Lightning then leaves the hook of the next epoch's start out."""

    def make():
        return FineTune(victim, optimizer=fast, batch_norm="eval") if name == "eval" else made(name, victim)

    saver = ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=2, save_top_k=-1)
    straight = tiny.fit(make(), data(selection, batch_size=12), max_epochs=EPOCHS, callbacks=[saver],
                        enable_checkpointing=True)  # fmt: skip
    resumed, trainer = make(), tiny.trainer(max_epochs=EPOCHS, limit_val_batches=0)
    trainer.fit(resumed, data(selection, batch_size=12), ckpt_path=tmp_path / "step=2.ckpt", weights_only=True)
    one, two = straight.state_dict(), resumed.state_dict()
    assert not [key for key in one if not torch.equal(one[key], two[key])]


@every_stage
def test_checkpoint_holds_plain_tensors_of_the_trained_net_alone(name, runs):
    folder, _, stage = runs(name)
    checkpoint = torch.load(folder / "epoch=0.ckpt", weights_only=True)
    assert checkpoint["lit_backdoor"]["stage"].endswith(f".{type(stage).__name__}")
    assert "hyper_parameters" not in checkpoint
    frozen = [key for key, module in stage.named_modules() if isinstance(module, Frozen)]
    assert frozen or name in ("PoisonedTraining", "LocalGradientAscentTraining", "FloodingTraining", "FineTune",
                              "MultiLevelMMDTraining", "TACFineTune", "TACStampFineTune", "PGBD", "NTPGBD", "SAMFineTune",
                              "FeatureShiftTuning", "ImplicitUnlearning", "SelectiveAmnesia")  # fmt: skip
    assert not [key for key in checkpoint["state_dict"] if key.startswith(tuple(f"{prefix}." for prefix in frozen))]
    assert {key.partition(".")[0] for key in checkpoint["state_dict"]} <= {
        "classifier",
        "generator",
        "trigger",
        "perturbations",
        "targets",
        "prototypes",
        "change",
        "recovering_from",
        "forgotten_to",
        "vectors",
        "mean",
    }


@every_stage
def test_frozen_nets_stay_as_they_were(name, runs):
    _, _, stage = runs(name)
    for module in stage.modules():
        if isinstance(module, Frozen):
            assert not module.module.training
            assert not any(weight.requires_grad or weight.grad is not None for weight in module.parameters())


@every_stage
def test_checkpoint_of_another_stage_is_refused(name, victim, selection, runs):
    other = "PoisonedTraining" if name == "FineTune" else "FineTune"
    folder, _, _ = runs(other)
    with pytest.raises(
        ValueError, match=rf"Expected a checkpoint of .*{type(made(name, victim)).__name__}, got one of .*{other}"
    ):
        tiny.trainer(max_epochs=EPOCHS).fit(
            made(name, victim), datamodule=data(selection), ckpt_path=folder / "epoch=0.ckpt", weights_only=True
        )


@every_stage
@pytest.mark.parametrize("verb", ["test", "validate", "predict"])
def test_weights_that_were_never_trained_are_not_evaluated(name, verb, victim, selection):
    with pytest.raises(ValueError, match="has no trained weights here"):
        getattr(tiny.trainer(), verb)(made(name, victim), datamodule=data(selection))


@every_stage
def test_checkpoint_can_be_tested_and_predicted_by(name, victim, selection, runs):
    folder, _, straight = runs(name)
    checkpoint, datamodule = folder / f"epoch={EPOCHS - 1}.ckpt", data(selection)
    trained = tiny.tested(straight, datamodule)
    assert trained
    assert tiny.tested(made(name, victim), datamodule, ckpt_path=checkpoint, weights_only=True) == trained
    predicted = tiny.trainer().predict(
        made(name, victim), datamodule=datamodule, ckpt_path=checkpoint, weights_only=True
    )
    assert len(predicted) > 0
    assert all(isinstance(batch, torch.Tensor) for batch in predicted)


class Spoil(Callback):
    """Makes the weights useless in a later epoch."""

    def on_train_epoch_start(self, trainer, module):
        if trainer.current_epoch == 1:
            with torch.no_grad():
                next(p for p in trained_net(module).parameters() if p.requires_grad).fill_(float("nan"))


@every_stage
def test_nan_loss_stops_and_keeps_the_last_good_checkpoint(name, victim, selection, tmp_path):
    saver = ModelCheckpoint(tmp_path, "{epoch}")
    with pytest.raises(DivergedError, match="epoch 1, step"):
        tiny.fit(made(name, victim), data(selection), max_epochs=3, callbacks=[Spoil(), saver],
                 enable_checkpointing=True)  # fmt: skip
    [kept] = tmp_path.glob("*.ckpt")
    assert kept.name == "epoch=0.ckpt"
    weights = torch.load(kept, weights_only=True)["state_dict"]
    assert all(torch.isfinite(value).all() for value in weights.values())


@every_stage
def test_bf16_mixed_trains_and_keeps_float_weights(name, victim, selection):
    stage = tiny.fit(made(name, victim), data(selection), precision="bf16-mixed", max_epochs=1)
    assert {weight.dtype for weight in trained_net(stage).parameters()} == {torch.float32}
    assert all(torch.isfinite(weight).all() for weight in trained_net(stage).parameters())


DEFENSES = [name for name in STAGES if not name.endswith("Training")]


@pytest.mark.parametrize("name", DEFENSES)
def test_defender_does_not_know_the_attack(name, victim, selection, tmp_path):
    """Without triggered loader, poison flags and target the weights are bit-equal."""
    knowing = data(selection)
    ignorant = data(selection)
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
    first, second = (tiny.fit(made(name, victim), d, max_epochs=2) for d in (knowing, ignorant))
    one, two = first.state_dict(), second.state_dict()
    assert all(torch.equal(one[key], two[key]) for key in one)


def test_norms_follow_the_policy_of_every_fine_tuning(victim, selection):
    for make in (FineTune, lambda v, **o: UnlearningFineTune(v, tiny.unet(), **o),
                 lambda v, **o: UnlearningFineTune(v, Blend(), **o)):  # fmt: skip
        for policy in ("eval", "train"):
            stage = make(victim, batch_norm=policy)
            stage.configure_model()
            before = tiny.tensors(stage.classifier)
            tiny.fit(stage, data(selection), max_epochs=2, limit_val_batches=1)
            running = {key for key in tiny.moved(before, tiny.tensors(stage.classifier)) if "running_" in key}
            norms = [m for m in stage.classifier.modules() if isinstance(m, nn.BatchNorm2d)]
            assert len(running) == (0 if policy == "eval" else 2 * len(norms))
