import pytest
import tiny
import torch
from martini_parts import CLASSES, QUICK, SIZE, attack, autoencoder, classifier, data, hardening, run
from torch.nn import functional as F

from lit_backdoor.bundle import open_bundle, save_bundle
from lit_backdoor.defenses.martini import (
    DecodedOnly,
    DecoderTraining,
    LabelSpecific,
    MartiniDetection,
    MartiniHardening,
    NothingReconstructed,
    ReconstructionSettings,
    RenormalizedOnly,
    TransformedOnly,
)
from lit_backdoor.functional.cost_schedule import CostRule
from lit_backdoor.functional.martini import (
    channel_moments,
    content_loss,
    norm_loss,
    smooth_loss,
    ssim_loss,
)
from lit_backdoor.models import ConvEncoder
from lit_backdoor.stages import PoisonedTraining
from lit_backdoor.stages.phased import Span

CONTROLS = (NothingReconstructed, DecodedOnly, RenormalizedOnly, TransformedOnly)


def test_decoder_learns_to_reconstruct_and_is_exported_with_its_encoder(tmp_path):
    datamodule = data()
    before = tiny.tested(tiny.fit(DecoderTraining(width=8), datamodule, max_epochs=1), datamodule)
    stage = tiny.fit(DecoderTraining(width=8), datamodule, max_epochs=30)
    after = tiny.tested(stage, datamodule)
    assert after["test/psnr"] > before["test/psnr"] + 2
    assert {"test/psnr", "test/ssim"} == set(after)
    stage.export(tmp_path / "a")
    bundle = open_bundle(tmp_path / "a", "decoder")
    images = torch.rand(2, 3, SIZE, SIZE)
    assert torch.equal(bundle.build()(images), stage.autoencoder.eval()(images))
    assert not bundle.info["inputs"]


def test_frozen_encoders_are_not_trained_with_the_decoder():
    class FrozenEncoder(ConvEncoder):
        def __init__(self):
            super().__init__(4)
            self.requires_grad_(False)

    stage = DecoderTraining(FrozenEncoder(), width=4)
    before = tiny.tensors(stage.encoder)
    tiny.fit(stage, data())
    assert not tiny.moved(before, tiny.tensors(stage.autoencoder.encoder))


def test_decoders_need_square_images():
    wide = tiny.TensorSource(
        (torch.zeros(8, 3, 16, 20, dtype=torch.uint8), torch.arange(8) % 2),
        (torch.zeros(4, 3, 16, 20, dtype=torch.uint8), torch.arange(4) % 2),
    )
    with pytest.raises(ValueError, match=r"square images, got 16x20. Set data.stored_size=16"):
        tiny.fit(DecoderTraining(), data(source=wide, split=tiny.Split(root_pool=4)))


def test_reconstruction_minimizes_the_papers_objective():
    stage = run(hardening(rounds=1))
    stage.target.fill_(2)
    torch.nn.init.normal_(stage.trigger.transformation.kernels, std=0.1)
    alpha = float(stage.alpha[2])
    batch = {"image": torch.rand(12, 3, SIZE, SIZE), "label": torch.arange(12) % CLASSES}
    found = stage.reconstruct(batch)

    images = batch["image"][batch["label"] != 2][: QUICK["images"]]
    trigger, weights = stage.trigger, stage.reconstruction.weights
    made = trigger(images)
    moments = [moment.mean(0) for moment in (stage.mean_of_all[None], stage.std_of_all[None])]
    quality = (
        weights.content * content_loss(trigger.autoencoder.encode(images), trigger.autoencoder.encode(made))
        + weights.ssim * ssim_loss(images, made)
        + weights.smooth * smooth_loss(made)
        + weights.norm * norm_loss(trigger.renormalization.mean, trigger.renormalization.std, *moments)
    )
    entropy = F.cross_entropy(stage.classifier(made), torch.full((len(images),), 2))
    torch.testing.assert_close(found["loss"], entropy + alpha * quality)


def test_reconstruction_starts_at_the_root_sets_statistics_and_the_identity():
    stage = hardening(rounds=1, reconstruction=ReconstructionSettings(lr=1e-12, lr_statistics=1e-12, **QUICK))
    datamodule = data(attack())
    run(stage, datamodule)
    images = torch.cat([batch["image"] for batch in datamodule.loader("root", shuffle=False)]).float() / 255
    mean, std = (moment.mean(0) for moment in channel_moments(images))
    torch.testing.assert_close(stage.trigger.renormalization.mean.data, mean, atol=1e-4, rtol=0)
    torch.testing.assert_close(stage.trigger.renormalization.std.data, std, atol=1e-4, rtol=0)


def test_each_phase_trains_its_own_net():
    stage, moved = hardening(rounds=1), {}

    class Watch(tiny.pl.Callback):
        def on_train_epoch_start(self, trainer, module):
            self.before = tiny.tensors(module)

        def on_train_epoch_end(self, trainer, module):
            moved[module.span.phase] = {name.split(".")[0] for name in tiny.moved(self.before, tiny.tensors(module))}

    run(stage, data(attack()), callbacks=[Watch()])
    assert "classifier" not in moved["reconstruct"]
    assert "trigger" in moved["reconstruct"]
    assert "classifier" in moved["harden"]
    autoencoder_now = tiny.tensors(stage.trigger.autoencoder)
    assert not tiny.moved(tiny.tensors(autoencoder()), autoencoder_now)


def test_best_trigger_of_a_round_is_kept():
    stage = run(
        hardening(rounds=1, reconstruction=ReconstructionSettings(alpha=CostRule(start=0.1, threshold=0.5), **QUICK)),
        data(attack()),
    )
    aim, layer = stage.aim, stage.trigger.transformation
    stage.best[aim.target] = torch.inf
    for value, rate, quality in ((1.0, 0.6, 5.0), (2.0, 0.9, 3.0), (3.0, 0.9, 4.0), (4.0, 0.4, 1.0)):
        layer.kernels.data.fill_(value)
        stage._judge(aim.target, torch.tensor(rate), torch.tensor(quality))
    stage.bank.load(aim.target, stage.trigger)
    assert layer.kernels.unique().item() == 2.0
    assert stage.best[aim.target].item() == 3.0


@pytest.mark.parametrize("warm", [True, False])
def test_warm_starts_go_on_from_the_classs_own_trigger(warm):
    stage = run(hardening(rounds=1, reconstruction=ReconstructionSettings(warm=warm, **QUICK)))
    for label in range(CLASSES):
        stage.bank.transformation_kernels[label] = label
    stage.begin_phase(Span("reconstruct", round=0, start=4, epochs=1))
    kernels = stage.trigger.transformation.kernels
    assert (kernels.unique().tolist() == [float(stage.aim.target)]) == warm


@pytest.mark.parametrize("control", CONTROLS)
def test_controls_leave_their_part_out(control):
    stage = hardening(control, rounds=2)
    run(stage)
    trigger = stage.trigger
    assert (trigger.renormalization is None) == (control in (DecodedOnly, TransformedOnly))
    assert (trigger.transformation is None) == (control is not TransformedOnly)
    phases = [span.phase for span in stage.plan]
    assert phases == (["harden"] * 2 if issubclass(control, NothingReconstructed) else ["reconstruct", "harden"] * 2)
    if control is NothingReconstructed:
        torch.testing.assert_close(trigger.renormalization.mean.data, stage.mean_of_all)


def test_label_specific_triggers_are_fitted_on_images_of_their_source():
    stage = run(hardening(rounds=2, schedule=LabelSpecific()))
    assert stage.source >= 0
    others = torch.full((6,), (int(stage.source) + 1) % CLASSES)
    assert stage.reconstruct({"image": torch.rand(6, 3, SIZE, SIZE), "label": others}) == {}


def test_images_with_a_trigger_keep_their_true_label():
    stage = run(hardening(rounds=1, share=0.5))
    images, labels = torch.rand(8, 3, SIZE, SIZE), torch.arange(8) % CLASSES
    rows = (labels != stage.target).nonzero().flatten()[:4]
    stage.classifier.eval()
    expected = F.cross_entropy(
        stage.classifier(torch.cat((images, stage.trigger(images[rows])))), torch.cat((labels, labels[rows]))
    )
    torch.testing.assert_close(stage.harden({"image": images, "label": labels}), expected)


@pytest.mark.slow
def test_nothing_of_the_attack_reaches_the_defense():
    weights = []
    for plan in (attack(), attack(seed=9), None):
        stage = run(hardening(rounds=1), data(plan))
        weights.append(tiny.tensors(stage.classifier))
    assert not tiny.moved(weights[0], weights[1]) | tiny.moved(weights[0], weights[2])


def test_bundles_of_suspect_and_decoder_are_noted(tmp_path):
    save_bundle(tmp_path / "s", kind="suspect", module=classifier(), attack=attack())
    save_bundle(tmp_path / "d", kind="decoder", module=autoencoder())
    stage = MartiniHardening(str(tmp_path / "s"), str(tmp_path / "d"), ReconstructionSettings(**QUICK), rounds=1)
    run(stage)
    stage.export(tmp_path / "out")
    made = open_bundle(tmp_path / "out", "suspect")
    assert set(made.info["inputs"]) == {"suspect", "decoder"}
    assert len(made.numbers["ease"]) == CLASSES


def test_a_decoder_for_another_size_is_refused():
    stage = MartiniHardening(classifier(), autoencoder(size=32), ReconstructionSettings(**QUICK), rounds=1)
    with pytest.raises(ValueError, match="suspect's size, 16x16, got one for 32x32"):
        run(stage)


def test_more_regions_than_the_maps_have_positions_are_refused():
    with pytest.raises(ValueError, match="from 1 to 8 regions"):
        run(hardening(rounds=1, reconstruction=ReconstructionSettings(regions=9)))


def test_a_poor_decoder_is_warned_of():
    datamodule = data(attack())
    suspect = tiny.fit(PoisonedTraining(classifier()), data(attack(), batch_size=12), max_epochs=8).classifier
    with pytest.warns(UserWarning, match="hardened against blur"):
        run(MartiniHardening(suspect, autoencoder(), ReconstructionSettings(**QUICK), rounds=1), datamodule)


@pytest.mark.parametrize(("options", "message"), [
    ({"epochs": 0}, "reconstruction.epochs > 0 and finite, got 0"),
    ({"images": 0}, "reconstruction.images > 0 and finite, got 0"),
    ({"lr": -1.0}, "reconstruction.lr > 0 and finite, got -1.0"),
])  # fmt: skip
def test_settings_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        ReconstructionSettings(**options)


@pytest.mark.parametrize(("options", "message"), [
    ({"rounds": 0}, "rounds to be at least 1, got 0"),
    ({"harden_epochs": 0}, "harden_epochs to be at least 1, got 0"),
    ({"share": 1.5}, r"share of images with a trigger in \(0, 1\]"),
])  # fmt: skip
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        hardening(**options)


@pytest.mark.parametrize("stop", [1, 2, 3])
def test_resumes_exactly_in_the_middle_of_a_round(stop, tmp_path):
    whole = run(hardening())
    part = hardening()
    trainer = tiny.trainer(limit_val_batches=0, max_epochs=4)

    class Stop(tiny.pl.Callback):
        def on_train_epoch_end(self, trainer, module):
            trainer.should_stop = trainer.current_epoch + 1 == stop

    trainer.callbacks.append(Stop())
    trainer.fit(part, datamodule=data(attack()))
    assert trainer.current_epoch == stop
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    again = hardening()
    tiny.trainer(limit_val_batches=0, max_epochs=4).fit(again, datamodule=data(attack()), ckpt_path=tmp_path / "a.ckpt")
    assert not tiny.moved(tiny.tensors(whole), tiny.tensors(again))


def detected(suspect=None, epochs=1, **options):
    return MartiniDetection(
        suspect or classifier(),
        autoencoder(),
        ReconstructionSettings(epochs=epochs, alpha=CostRule(start=0.01, threshold=0.5), **QUICK),
        num_classes=CLASSES,
        **options,
    )


def test_detection_reports_every_class_and_keeps_the_suspect(tmp_path):
    suspect = tiny.fit(PoisonedTraining(classifier()), data(attack(), batch_size=12), max_epochs=8).classifier
    before = tiny.tensors(suspect)
    stage = run(detected(suspect, epochs=6))
    assert not tiny.moved(before, tiny.tensors(stage.classifier))
    found = tiny.tested(stage, data(attack()))
    assert {"test/reconstructed_asr", "test/reconstructed_psnr", "test/flagged_classes", "test/target_top"} <= set(
        found
    )
    stage.export(tmp_path / "a")
    bundle = open_bundle(tmp_path / "a", "targets")
    assert len(bundle.tensors()["statistic"]) == CLASSES
    images = torch.rand(2, 3, SIZE, SIZE)
    assert torch.equal(bundle.build()(images), stage.trigger_of(bundle.numbers["top_class"])(images))


def test_detections_statistic_is_the_quality_of_the_kept_trigger():
    stage = run(detected())
    stage.best.copy_(torch.tensor([1.0, 5.0, 5.1, 4.9]))
    report = stage.report()
    assert report.top == 0
    assert report.flagged == (0,)
    stage.best[1:] = torch.inf
    assert stage.report().flagged == ()


def test_detection_of_another_number_of_classes_is_refused():
    with pytest.raises(ValueError, match=f"suspect with 7 classes, got {CLASSES}. Set num_classes={CLASSES}"):
        run(MartiniDetection(classifier(), autoencoder(), num_classes=7))
