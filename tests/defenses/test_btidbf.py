"""The stages of BTI-DBF: their plans, what they train, what they leave, what they refuse."""

import lightning.pytorch as pl
import pytest
import torch
from btidbf_parts import ONE, Views, data, feature_distance, purification, run, suspect, trainer, unet, unlearning
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.strategies import DDPStrategy

from lit_backdoor.bundle import open_bundle, save_bundle
from lit_backdoor.data import BackdoorDataModule
from lit_backdoor.defenses.btidbf import (
    BTIDBFAdaptiveTraining,
    BTIDBFInversion,
    BTIDBFPartialPurification,
    Decoupling,
    InversionSettings,
)
from lit_backdoor.models import Purified, WarpField, wrap_classifier
from lit_backdoor.stages import BundleWriter, Evaluation, UnlearningFineTune, make_plan
from lit_backdoor.triggers import Attack, GeneratorTrigger, Trigger

STAGES = {
    "unlearning": unlearning,
    "choosing": lambda **options: unlearning(**{"generator": [unet(), unet(seed=8)], **options}),
    "purification": purification,
}


def test_plan_is_a_function_of_the_epoch():
    stage = unlearning()
    assert [(s.phase, s.round, s.start, s.epochs) for s in stage.plan] == [
        ("mask", 0, 0, 1), ("invert", 0, 1, 2), ("unlearn", 0, 3, 1),
        ("mask", 1, 4, 1), ("invert", 1, 5, 1), ("unlearn", 1, 6, 1),
    ]  # fmt: skip
    assert stage.planned_epochs == 7
    assert make_plan([("a", 0, 0), ("b", 0, 2)])[0].start == 0


@pytest.mark.slow
@pytest.mark.parametrize("name", STAGES)
def test_resumed_run_is_exact_and_every_net_moves(name, tmp_path):
    class Stop(pl.Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            trainer.should_stop = trainer.current_epoch == 3

    whole = STAGES[name]()
    before = {}

    class Note(pl.Callback):
        def on_fit_start(self, trainer, pl_module):
            before.update({k: v.clone() for k, v in pl_module.state_dict().items()})

    run(whole, callbacks=[Note()])
    half = STAGES[name]()
    checkpoint = ModelCheckpoint(tmp_path, filename="last")
    trainer(7, callbacks=[Stop(), checkpoint], enable_checkpointing=True).fit(half, datamodule=data())
    assert half.current_epoch == 4
    others = [unet(seed=99), unet(seed=98)]  # their starts are overwritten
    resumed = STAGES[name](generator=others if name == "choosing" else others[0])
    trainer(7).fit(resumed, datamodule=data(), ckpt_path=str(tmp_path / "last.ckpt"), weights_only=True)
    assert whole.chosen == resumed.chosen
    final, again = whole.state_dict(), resumed.state_dict()
    assert final.keys() == again.keys()
    assert all(torch.equal(final[key], again[key]) for key in final if not final[key].isnan().any())
    for net in ("raw_mask", "generators.", "probe.", "purifier." if name == "purification" else "classifier."):
        assert any(not torch.equal(before[key], final[key]) for key in final if key.startswith(net)), net


@pytest.mark.parametrize("epoch", [3, 4], ids=["first inversion", "first round"])
def test_run_resumed_at_an_epoch_s_last_step_equals_one_that_was_not_stopped(epoch, tmp_path):
    """Lightning then leaves out the hooks of that epoch's end and of the next one's start."""
    saver = ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=3, save_top_k=-1)
    settings = {"inversion": InversionSettings(epochs=1, first_epochs=2, toward_target=True)}
    whole = run(unlearning(**settings), callbacks=[saver], enable_checkpointing=True, limit_val_batches=0)
    resumed, path = unlearning(**settings), str(tmp_path / f"step={3 * epoch}.ckpt")
    trainer(7, limit_val_batches=0).fit(resumed, datamodule=data(), ckpt_path=path, weights_only=True)
    torch.testing.assert_close(resumed.state_dict(), whole.state_dict(), rtol=0, atol=0, equal_nan=True)


@pytest.mark.slow
@pytest.mark.parametrize("name", STAGES)
def test_weights_do_not_depend_on_the_attack(name):
    found = [run(STAGES[name](), data(attack=attack)) for attack in (True, None)]
    first, second = (stage.state_dict() for stage in found)
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert found[0].numbers() == found[1].numbers()


@pytest.mark.parametrize("generator", [unet, WarpField])
def test_inversion_leaves_a_trigger_that_others_use(generator, tmp_path):
    victim = tmp_path / "victim"
    save_bundle(victim, kind="suspect", module=suspect())
    stage = BTIDBFInversion(str(victim), ONE, InversionSettings(epochs=2), generator())
    trainer(3, callbacks=[BundleWriter(str(tmp_path / "trigger"))]).fit(stage, datamodule=data())
    bundle = open_bundle(tmp_path / "trigger", "trigger")
    trigger = bundle.build()
    assert isinstance(trigger, GeneratorTrigger)
    assert isinstance(trigger, Trigger)
    assert 0 <= bundle.numbers["target_class"] < 4
    assert 0.25 <= bundle.numbers["target_share"] <= 1

    images = torch.rand(5, 3, 16, 16)
    assert torch.equal(trigger(images, torch.arange(5)), stage.generator(images))
    stamped = BackdoorDataModule(data().source, attack=Attack(trigger, target=2), eval_batch_size=16)
    batch = next(iter(stamped.triggered_batches(torch.device("cpu"))))
    assert torch.equal(batch["image"], trigger(batch["original"]))

    tester = trainer(1)
    tester.test(Evaluation(str(bundle.path)), datamodule=data(), verbose=False)
    found = {name.removeprefix("test/"): float(value) for name, value in tester.callback_metrics.items()}
    assert found["target_found"] == float(bundle.numbers["target_class"] == 1)
    assert found["feature_distance"] == pytest.approx(feature_distance(trigger), rel=1e-4)
    fine = UnlearningFineTune(str(victim), str(bundle.path))
    trainer(1).fit(fine, datamodule=data())


def test_warps_are_learned_in_every_round():
    start = WarpField().raw.detach().clone()
    kept = []

    class Keep(pl.Callback):
        def on_train_epoch_end(self, trainer, stage):
            kept.append(stage.generator.raw.detach().clone())

    field = WarpField()
    with torch.no_grad():
        field.raw.copy_(start)
    run(unlearning(generator=field), callbacks=[Keep()])
    moved = [not torch.equal(new, old) for old, new in zip([start, *kept], kept, strict=False)]
    assert moved == [False, True, True, False, False, True, False]  # by phases: mask, invert, invert, unlearn, ...


def test_runs_by_steps_are_refused():
    with pytest.raises(ValueError, match="no max_steps"):
        run(unlearning(), max_steps=2)


@pytest.mark.parametrize(("epoch", "batch"), [(2, -1), (6, 0)])
def test_run_that_ends_before_its_last_phase_leaves_no_bundle(epoch, batch, tmp_path):
    """Early stopping ends a run after an epoch, a limit of time within one."""

    class Stop(pl.Callback):
        def on_train_batch_end(self, trainer, stage, outputs, inputs, batch_idx):
            trainer.should_stop |= trainer.current_epoch == epoch and batch_idx == batch % trainer.num_training_batches

    whole = epoch + (batch == -1)
    with pytest.raises(
        ValueError, match=f"Expected 7 epochs for BTIDBFPartialUnlearning.*a run that ended after {whole}"
    ):
        run(unlearning(), callbacks=[Stop(), BundleWriter(str(tmp_path / "b"))])
    assert not (tmp_path / "b").exists()


def test_images_of_another_size_are_refused_by_name():
    with pytest.raises(ValueError, match=r"suspect's size, 16x16, got 32x32.*stored_size=16"):
        run(unlearning(), data(stored_size=32))


def test_purified_suspect_is_a_suspect(tmp_path):
    stage = purification()
    run(stage, callbacks=[BundleWriter(str(tmp_path / "clean"))])
    net = open_bundle(tmp_path / "clean", "suspect").build()
    assert isinstance(net, Purified)
    images = torch.rand(4, 3, 16, 16)
    with torch.no_grad():
        assert torch.allclose(net(images), stage.eval()(images), atol=1e-6)
    tester = trainer(1)
    tester.test(Evaluation(str(tmp_path / "clean")), datamodule=data(), verbose=False)
    assert {"test/acc", "test/asr", "test/ra"} <= tester.callback_metrics.keys()


def test_mask_phase_refreshes_the_copy_and_leaves_the_suspect():
    stage = run(BTIDBFInversion(suspect(), ONE, InversionSettings(epochs=1), unet()))
    fresh, probe = stage.net.module.state_dict(), stage.probe.state_dict()
    moved = {key for key in fresh if not torch.equal(fresh[key], probe[key])}
    assert moved
    assert all("running" in key or "num_batches" in key for key in moved)
    original = suspect().state_dict()
    assert all(torch.equal(fresh[key], original[key]) for key in fresh)
    still = run(
        BTIDBFInversion(suspect(), Decoupling(epochs=1, batch_norm="eval"), InversionSettings(epochs=1), unet())
    )
    assert all(torch.equal(a, b) for a, b in zip(original.values(), still.probe.state_dict().values(), strict=True))


@pytest.mark.parametrize(("mask", "value"), [("zeros", 0), ("ones", 1)])
def test_mask_off(mask, value):
    stage = run(BTIDBFInversion(suspect(), Decoupling(epochs=1, mask=mask), InversionSettings(epochs=1), unet()))
    assert torch.equal(stage.mask, torch.full_like(stage.raw_mask, value))
    assert not stage.mask.requires_grad


def test_release_settings_run():
    inversion = InversionSettings(
        epochs=1,
        warmup_epochs=1,
        tau=0.3,
        units="normalized",
        bound="branch",
        statistics="suspect",
        toward_target=True,
    )
    stage = run(unlearning(inversion=inversion))
    assert stage.tau == pytest.approx(0.3 * sum(s**2 for s in stage.subject.std) / 3)
    pure = purification(BTIDBFPartialPurification, inversion=inversion, noise=0.03, far_weight=100.0)
    run(pure, precision="bf16-mixed")
    absolute = InversionSettings(epochs=1, norm="l1", tau=0.05)
    run(unlearning(inversion=absolute, rounds=1), precision="bf16-mixed")


def test_feature_layer_is_selectable():
    stage = run(BTIDBFInversion(suspect(), Decoupling(epochs=1, layer="layer3"), InversionSettings(epochs=1), unet()))
    assert stage.raw_mask.shape == (1, 16, 4, 4)
    purified = Purified(unet(), suspect())
    again = run(BTIDBFInversion(purified, Decoupling(epochs=1, layer="layer2"), InversionSettings(epochs=1), unet()))
    images = torch.rand(2, 3, 16, 16)
    with torch.no_grad():
        part = again.features(again.subject, images)
        assert torch.allclose(again.head(again.subject, part), again.subject(images), atol=1e-5)
        expected = again.subject.taps(images, ["layer2"])["layer2"]
    assert torch.allclose(part, expected)


def test_layer_of_a_net_that_reads_the_batch_is_selectable():
    net = wrap_classifier(Views(), split="pool", num_classes=4, input_size=16, mean=(0.0,) * 3, std=(1.0,) * 3)
    stage = run(BTIDBFInversion(net, Decoupling(epochs=1, layer="conv"), InversionSettings(epochs=1), unet()))
    images = torch.rand(3, 3, 16, 16)
    torch.testing.assert_close(stage.head(net, stage.features(net, images)), net(images))


def test_adaptive_training_keeps_to_clean_rows():
    stage = BTIDBFAdaptiveTraining(suspect(), ONE, epochs=1)
    before = {key: value.clone() for key, value in suspect().state_dict().items()}
    trainer(2).fit(stage, datamodule=data())
    assert any(not torch.equal(before[key], value) for key, value in stage.classifier.state_dict().items())
    with pytest.raises(ValueError, match=r"Expected data\.attack"):
        trainer(2).fit(BTIDBFAdaptiveTraining(suspect(), ONE, epochs=1), datamodule=data(attack=None))


def test_small_root_sets_work():
    with pytest.warns(UserWarning, match="class"):
        run(unlearning(rounds=1, unlearn_epochs=1), data(root=3, batch_size=8))


@pytest.mark.parametrize("given", [{}, {"max_time": {"hours": 1}}])
def test_number_of_epochs_is_filled_in_where_none_is_given(given):
    stage, options = unlearning(), {"accelerator": "cpu", "logger": False, "enable_checkpointing": False}
    pl.Trainer(**options, **given).fit(stage, datamodule=data())
    assert stage.current_epoch == stage.planned_epochs == 7


def test_wrong_numbers_of_epochs_and_strategies_are_errors():
    with pytest.raises(ValueError, match="Expected 7 epochs for BTIDBFPartialUnlearning.*--trainer.max_epochs 7"):
        trainer(5).fit(unlearning(), datamodule=data())
    trainer(5, fast_dev_run=True).fit(unlearning(), datamodule=data())
    stage = unlearning()
    run_ddp = trainer(7)
    run_ddp.strategy.__class__ = type("Plain", (DDPStrategy,), {})
    run_ddp.strategy._ddp_kwargs = {}
    stage.trainer = run_ddp
    with pytest.raises(ValueError, match="ddp_find_unused_parameters_true"):
        stage.setup("fit")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: InversionSettings(tau=0), "inversion.tau > 0"),
        (lambda: InversionSettings(norm="l3"), "Unknown inversion.norm"),
        (lambda: Decoupling(mask="half"), "Unknown decoupling.mask"),
        (lambda: Decoupling(epochs=0), "decoupling.epochs > 0"),
        (lambda: unlearning(rounds=0), "at least one round"),
        (lambda: purification(lr=-1.0), "purifier's lr to be finite and 0 or more"),
        (lambda: unlearning(share=0.0), "share of generated"),
        (lambda: BTIDBFAdaptiveTraining(suspect(), epochs=0), "at least one epoch"),
    ],
)
def test_bad_settings_are_errors(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_unknown_layer_is_an_error():
    with pytest.raises(ValueError, match="Unknown layer 'layer9'"):
        run(BTIDBFInversion(suspect(), Decoupling(epochs=1, layer="layer9"), InversionSettings(epochs=1), unet()))
    with pytest.raises(ValueError, match="skip connection"):
        run(
            BTIDBFInversion(
                suspect(), Decoupling(epochs=1, layer="layer2.0.conv1"), InversionSettings(epochs=1), unet()
            )
        )
