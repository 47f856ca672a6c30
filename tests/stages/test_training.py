"""What each trained stage does that the others do not."""

import warnings

import pytest
import tiny
import torch
from foreign_parts import ForeignData
from torch import nn
from torch.nn import functional as F

from lit_backdoor.bundle import open_bundle, save_bundle
from lit_backdoor.data import TensorSource
from lit_backdoor.defenses.atclean import (
    CollisionGenerator,
    DetectorFreeGenerator,
    UntrainedGenerator,
)
from lit_backdoor.errors import DivergedError
from lit_backdoor.models import wrap_classifier
from lit_backdoor.stages import (
    Evaluation,
    FineTune,
    FloodingTraining,
    GeneratedFineTune,
    HalfGeneratedFineTune,
    LocalGradientAscentTraining,
    PoisonedTraining,
    UnlearningFineTune,
)
from lit_backdoor.stages.optim import make_schedule
from lit_backdoor.triggers import Patch


def mixed(stage, batch):
    stage.configure_model()
    return stage.mixed(batch)


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(5, 3, 16, 16, generator=generator)
    return {"image": image, "label": torch.arange(5) % 4, "index": torch.arange(5), "view": "root"}


def test_poisoned_training_learns_task_and_trigger():
    stage = PoisonedTraining(tiny.classifier(), optimizer=lambda p: torch.optim.Adam(p, lr=1e-2), schedule="constant")
    datamodule = tiny.data(tiny.attack(0.4), batch_size=16)
    tiny.fit(stage, datamodule, max_epochs=12)
    result = tiny.tested(stage, datamodule)
    assert result["test/acc"] > 0.7
    assert result["test/asr"] > 0.7


def test_classifier_for_other_classes_is_refused():
    part = (torch.zeros(8, 3, 16, 16, dtype=torch.uint8), torch.arange(8) % 2)
    datamodule = tiny.data(source=TensorSource(part, part), split=None)
    with pytest.raises(ValueError, match="data's 2 classes, got one for 4"):
        tiny.fit(PoisonedTraining(tiny.classifier()), datamodule)


@pytest.mark.parametrize("share", [2.0, -0.1, float("nan")])
def test_label_smoothing_out_of_range_is_refused(share):
    with pytest.raises(ValueError, match=r"label_smoothing in \[0, 1\), got"):
        PoisonedTraining(tiny.classifier(), label_smoothing=share)


def test_learning_rate_that_is_no_number_is_refused_before_training():
    stage = PoisonedTraining(tiny.classifier(), lambda weights: torch.optim.SGD(weights, lr=float("nan")))
    steps = tiny.recorded(stage)
    with pytest.raises(ValueError, match="Expected the learning rate of SGD to be finite and 0 or more, got nan"):
        tiny.fit(stage, tiny.data())
    assert not steps


def test_batches_that_are_no_mappings_are_refused_by_name(victim):
    pairs = torch.utils.data.TensorDataset(torch.rand(8, 3, 16, 16), torch.arange(8) % 4)
    with pytest.raises(ValueError, match="BackdoorDataModule"):
        tiny.trainer(limit_val_batches=0).fit(FineTune(victim), torch.utils.data.DataLoader(pairs))


def test_a_net_of_ones_own_must_be_wrapped():
    with pytest.raises(ValueError, match="got a Sequential. Wrap a net of your own"):
        tiny.fit(FineTune(torch.nn.Sequential(torch.nn.Flatten())), tiny.data())


def test_a_suspect_whose_weights_are_not_finite_is_not_measured(tmp_path):
    broken = tiny.classifier()
    with torch.no_grad():
        next(broken.parameters()).fill_(torch.nan)
    save_bundle(tmp_path / "broken", kind="suspect", module=broken)
    with pytest.raises(ValueError, match="1 not finite: net.conv1.weight"):
        tiny.tested(Evaluation(str(tmp_path / "broken")), tiny.data())


@pytest.mark.parametrize("stage", [PoisonedTraining, FineTune])
@pytest.mark.parametrize(("size", "warned"), [(None, False), (tiny.SIZE, False), (2 * tiny.SIZE, True)])
def test_images_of_another_size_than_the_classifiers_are_warned_of(stage, size, warned):
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        tiny.fit(stage(tiny.classifier()), tiny.data(stored_size=size), max_steps=1)
    assert any("for images of 16x16, the data has 32x32" in str(warning.message) for warning in seen) == warned


@pytest.mark.parametrize(("stage", "expected"), [
    (PoisonedTraining, lambda loss: loss),
    (LocalGradientAscentTraining, lambda loss: (loss - 0.5).sign() * loss),
    (FloodingTraining, lambda loss: (loss - 0.5).abs() + 0.5),
])  # fmt: skip
def test_losses_of_the_trainings(stage, expected):
    labels = torch.tensor([0, 1, 2])
    for scale in (0.0, 20.0):
        logits = scale * F.one_hot(labels, 4).float()
        value = stage(tiny.classifier()).criterion(logits, labels)
        assert torch.allclose(value, expected(F.cross_entropy(logits, labels)))


def test_unlearning_mixes(victim, batch):
    maker = tiny.unet(start="small")
    image, label = batch["image"], batch["label"]
    made = maker(image)
    for make, images, labels in (
        (GeneratedFineTune, made, label),
        (HalfGeneratedFineTune, torch.cat((made[:3], image[3:])), label),
        (UnlearningFineTune, torch.cat((image, made)), label.repeat(2)),
    ):
        given = mixed(make(victim, maker), batch)
        assert torch.allclose(given["image"], images, atol=1e-6)
        assert torch.equal(given["label"], labels)


def test_unlearning_by_a_trigger_gives_every_image_twice(victim, batch):
    trigger = Patch(size=3, place=(0, 0))
    given = mixed(UnlearningFineTune(victim, trigger), batch)
    assert torch.equal(given["image"][:5], batch["image"])
    assert torch.equal(given["image"][5:], trigger(batch["image"], batch["index"]))
    assert torch.equal(given["label"], batch["label"].repeat(2))


def test_a_foreign_data_module_without_a_seed_is_told_what_to_use_instead():
    theirs = ForeignData()
    theirs.seed = None
    with pytest.raises(ValueError, match=r"BackdoorDataModule\(DataModuleSource\(yours\)\)"):
        tiny.fit(FineTune(tiny.classifier()), theirs)


def test_double_precision_converts_a_wrapped_net():
    net = wrap_classifier(
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 4)),
        split="2", num_classes=4, input_size=16, mean=(0.5,) * 3, std=(0.5,) * 3,
    )  # fmt: skip
    stage = tiny.fit(FineTune(net), tiny.data(), precision="64-true")
    assert {weight.dtype for weight in stage.classifier.parameters()} == {torch.float64}


def test_given_classifier_stays_as_it_is(victim):
    net = tiny.classifier()
    before = tiny.tensors(net)
    stage = tiny.fit(FineTune(net), tiny.data())
    assert not tiny.moved(before, tiny.tensors(net))
    assert tiny.moved(before, tiny.tensors(stage.classifier))


def unlabeled_root():
    pictures = tiny.source(n_train=24, seed=9)
    pictures._class_names = ()
    pictures.train().labels.fill_(-1)
    return tiny.data(tiny.attack(), root_source=pictures)


@torch.no_grad()
def said(net, view):
    return net.eval()(view.rows.images(view.index).float() / 255).argmax(1)


def test_root_images_from_elsewhere_are_labeled_by_the_suspect(victim):
    datamodule = unlabeled_root()
    view = datamodule.get_view("root")
    assert (view.label == -1).all()
    tiny.fit(FineTune(victim), datamodule)
    assert torch.equal(view.label, said(open_bundle(victim).build(), view))


def test_each_suspect_labels_the_root_images_for_itself():
    one, other, datamodule = tiny.classifier(0), tiny.classifier(1), unlabeled_root()
    view = datamodule.get_view("root")
    assert not torch.equal(said(one, view), said(other, view))
    for net in (one, other):
        tiny.fit(FineTune(net), datamodule)
        assert torch.equal(view.label, said(net, view))


def test_root_labels_that_were_set_are_not_asked_for(victim):
    datamodule = unlabeled_root()
    datamodule.set_root_labels(torch.arange(24) % 4)
    tiny.fit(FineTune(victim), datamodule)
    assert torch.equal(datamodule.get_view("root").label, torch.arange(24) % 4)


def test_collision_moves_features_toward_the_suspicious(victim, selection):
    stage = CollisionGenerator(victim, tiny.unet(start="small"), alpha=10.0, layers=2)
    steps = tiny.recorded(stage)
    tiny.fit(stage, tiny.data(tiny.attack(), suspicious=selection), max_epochs=25)
    values = [float(step["locate"]) for step in steps]
    assert sum(values[-5:]) < sum(values[:5])


def test_cache_of_suspicious_features_has_a_limit(victim, selection):
    stage = CollisionGenerator(victim, tiny.unet(), layers=2, cache_rows=3)
    tiny.fit(stage, tiny.data(tiny.attack(), suspicious=selection, eval_batch_size=2))
    assert [len(part) for part in stage.suspicious] == [3, 3]


def test_collision_needs_a_selection(victim):
    with pytest.raises(ValueError, match=r"Expected data.suspicious"):
        tiny.fit(CollisionGenerator(victim, tiny.unet(), layers=2), tiny.data(tiny.attack()))


def test_detector_free_keeps_the_change_small(victim):
    stage = DetectorFreeGenerator(victim, tiny.unet(start="small"), bound=1e-3, layers=2)
    steps = tiny.recorded(stage)
    tiny.fit(stage, tiny.data(tiny.attack()), max_epochs=25)
    assert steps[-1]["divergence"] > steps[0]["divergence"]
    assert steps[-1]["mse"] < 4e-3


def test_detector_free_sees_features_with_the_root_sets_statistics(victim):
    datamodule = tiny.data(tiny.attack(), eval_batch_size=24)
    stage = tiny.fit(DetectorFreeGenerator(victim, tiny.unet(start="small"), layers=2), datamodule)
    images = torch.cat([batch["image"][batch["valid"]] for batch in stage.passes("root")])
    net = stage.net.module.net
    expected = net.conv1(stage.net.module.normalize(images)).mean((0, 2, 3))
    torch.testing.assert_close(stage.judge.module.net.bn1.running_mean, expected, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(net.bn1.running_mean, expected, rtol=1e-3)
    own = tiny.fit(DetectorFreeGenerator(victim, tiny.unet(start="small"), layers=2, statistics="suspect"), datamodule)
    assert own.judge is own.net


def test_detector_frees_statistics_are_of_batches_of_one_row_too_and_a_short_last_one_has_no_part(victim):
    def statistics(size):
        stage = DetectorFreeGenerator(victim, tiny.unet(start="small"), layers=2)
        tiny.fit(stage, tiny.data(tiny.attack(), eval_batch_size=size), limit_train_batches=1)
        images = [batch["image"][batch["valid"]] for batch in stage.passes("root")]
        net = stage.net.module
        return stage.judge.module.net.bn1.running_mean, [net.net.conv1(net.normalize(part)) for part in images]

    for size, parts in ((1, 24), (11, 2)):  # 24 root rows: 11, 11 and 2
        found, maps = statistics(size)
        expected = torch.stack([part.mean((0, 2, 3)) for part in maps[:parts]]).mean(0)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_detector_free_refuses_images_of_another_size(victim):
    with pytest.raises(ValueError, match="images of the suspect's size, 16x16, got 24x24"):
        tiny.fit(DetectorFreeGenerator(victim), tiny.data(stored_size=24))


def test_untrained_generator_has_random_weights_in_every_layer(victim, tmp_path):
    stage = UntrainedGenerator(victim, tiny.unet(start="random"))
    tiny.trainer().predict(stage, datamodule=tiny.data(tiny.attack()), return_predictions=False)
    stage.export(tmp_path / "g")
    generator = open_bundle(tmp_path / "g", "generator").build()
    assert all(module.weight.std() > 1e-3 for module in generator.modules() if isinstance(module, torch.nn.Conv2d))
    result = tiny.tested(stage, tiny.data(tiny.attack()))
    again = Evaluation(str(tmp_path / "g"))
    assert tiny.tested(again, tiny.data(tiny.attack())) == result


# Evaluations.


def test_evaluation_counts_as_written_down(victim):
    datamodule = tiny.data(tiny.attack())
    result = tiny.tested(Evaluation(victim), datamodule)
    net, test = open_bundle(victim).build(), datamodule.source.test()
    images = test.images(torch.arange(len(test))).float() / 255
    with torch.no_grad():
        clean = net(images).argmax(1)
        stamped = net(tiny.attack().trigger(images, torch.arange(len(test)))).argmax(1)
    counted = test.labels != 0
    assert result["test/acc"] == pytest.approx(float((clean == test.labels).float().mean()))
    assert result["test/asr"] == pytest.approx(float((stamped[counted] == 0).float().mean()))
    assert result["test/ra"] == pytest.approx(float((stamped[counted] == test.labels[counted]).float().mean()))


def test_clean_model_has_accuracy_alone(victim):
    result = tiny.tested(Evaluation(victim), tiny.data())
    assert set(result) == {"test/acc"}


def test_generator_evaluation_wants_the_suspect_it_was_trained_on(victim, tmp_path):
    save_bundle(tmp_path / "alone", kind="generator", module=tiny.unet())
    with pytest.raises(ValueError, match="does not say from which suspect"):
        tiny.trainer().test(Evaluation(str(tmp_path / "alone")), datamodule=tiny.data(tiny.attack()), verbose=False)
    save_bundle(tmp_path / "s", kind="suspect", module=tiny.classifier(seed=1))
    made = {"suspect": {"hash": open_bundle(victim).hash, "path": "../s"}}
    save_bundle(tmp_path / "g", kind="generator", module=tiny.unet(), inputs=made)
    with pytest.raises(ValueError, match="is not the one that"):
        tiny.trainer().test(Evaluation(str(tmp_path / "g")), datamodule=tiny.data(tiny.attack()), verbose=False)


def test_kinds_without_a_test(tmp_path):
    save_bundle(tmp_path / "t", kind="decoder", tensors={"x": torch.ones(1)})
    with pytest.raises(ValueError, match="holds tensors, not a net"):
        tiny.tested(Evaluation(str(tmp_path / "t")), tiny.data())


@pytest.mark.parametrize(("step", "steps"), [(1, 4), (2, 60)])
def test_infinite_loss_is_named_with_its_step(step, steps):
    class Infinite(PoisonedTraining):
        def losses(self, batch):
            found = super().losses(batch)
            return {**found, "loss": found["loss"] / float(self.global_step != step)}

    with pytest.raises(DivergedError, match=rf"became inf in epoch 0, step {step}\."):
        tiny.fit(Infinite(tiny.classifier()), tiny.data(tiny.attack(), batch_size=72 // steps))


@pytest.mark.parametrize("name", ["constant", "cosine"])
def test_a_run_without_end_needs_a_constant_rate(name):
    stage = PoisonedTraining(tiny.classifier(), schedule=name)
    trainer = {"max_epochs": -1, "max_time": {"seconds": 1}, "limit_train_batches": 1}
    if name == "constant":
        tiny.fit(stage, tiny.data(tiny.attack()), **trainer)
    else:
        with pytest.raises(ValueError, match="max_epochs"):
            tiny.fit(stage, tiny.data(tiny.attack()), **trainer)


@pytest.mark.parametrize("steps", range(1, 10))
def test_one_cycle_takes_runs_of_any_length(steps):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0, momentum=0.9)
    schedule = make_schedule(optimizer, "one_cycle", steps)
    for _ in range(steps - 1):
        optimizer.step()
        schedule.step()
        assert 0 <= optimizer.param_groups[0]["lr"] <= 1


@pytest.mark.parametrize(("name", "last"), [("cosine", 0.0), ("one_cycle", 0.0)])
def test_schedules(name, last):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.1, momentum=0.9)
    schedule, rates = make_schedule(optimizer, name, 20), []
    for _ in range(19):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert max(rates) == pytest.approx(0.1, rel=0.05)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.1 * last, abs=2e-3)
