"""From a report of target classes to a suspect that unlearned their triggers."""

import pytest
import tiny
import torch

from lit_backdoor.bundle import open_bundle, save_bundle
from lit_backdoor.defenses.trigger_inversion import NeuralCleanse, PixelInversion
from lit_backdoor.functional.trigger_inversion import signed_change
from lit_backdoor.metrics import feature_distance
from lit_backdoor.stages import Evaluation, StampedUnlearning, TargetReport, UnlearningFineTune
from lit_backdoor.triggers import AddedPattern, MaskedPattern, OneOf, Patch, SemanticTrigger

SIZES = {"one": [9.0, 8.0, 1.0, 8.5], "several": [1.0, 8.0, 2.0, 8.5], "none": [9.0, 8.8, 9.2, 9.1]}
FLAGGED = {"one": (2,), "several": (0, 2), "none": ()}


@pytest.fixture(scope="module")
def victim(tmp_path_factory):
    path = tmp_path_factory.mktemp("bundles") / "victim"
    save_bundle(path, kind="suspect", module=tiny.classifier(), attack=tiny.attack())
    return str(path)


def left(folder, victim, case, make=NeuralCleanse):
    """Leave the bundle of a search that found triggers of these sizes."""
    stage = make(victim)
    stage.configure_model()
    stage.best.copy_(torch.tensor(SIZES[case]))
    for number, kept in enumerate(stage.kept):
        kept.copy_(torch.randn(kept.shape, generator=torch.Generator().manual_seed(number)))
    stage.report = lambda: TargetReport(stage.best, stage.best, FLAGGED[case])
    stage.export(folder / case)
    return stage, str(folder / case)


@pytest.mark.parametrize(("case", "kind"), [("one", MaskedPattern), ("several", OneOf), ("none", MaskedPattern)])
def test_bundle_holds_the_triggers_of_the_flagged_classes_or_of_the_top_one(case, kind, victim, tmp_path):
    stage, path = left(tmp_path, victim, case)
    trigger = open_bundle(path, "targets").build()
    assert type(trigger) is kind
    top = {"one": [2], "several": [0, 2], "none": [1]}[case]
    held = list(trigger.triggers) if kind is OneOf else [trigger]
    for label, each in zip(top, held, strict=True):
        torch.testing.assert_close(each.mask, stage.kept[0][label].tanh() / 2 + 0.5)


def test_bundle_of_pixel_holds_the_signed_change(victim, tmp_path):
    stage, path = left(tmp_path, victim, "one", PixelInversion)
    trigger, change = open_bundle(path).build(), signed_change(*(kept[2] for kept in stage.kept))
    assert type(trigger) is AddedPattern
    torch.testing.assert_close(trigger.change, change * (change.abs() >= 1 / 255))


@pytest.mark.parametrize("make", [UnlearningFineTune, StampedUnlearning])
def test_trigger_that_needs_the_row_is_unlearned_and_one_that_is_no_pixels_refused(make, victim):
    seen = []

    class Seeing(Patch):
        def forward(self, images, index):
            seen.append(index)
            return super().forward(images, index)

    tiny.fit(make(victim, Seeing(size=3)), tiny.data(batch_size=8), max_epochs=1)
    assert seen
    assert all(index.dtype == torch.int64 for index in seen)
    with pytest.raises(ValueError, match="a trigger that can be stamped"):
        tiny.fit(make(victim, SemanticTrigger("x")), tiny.data(batch_size=8), max_epochs=1)


@pytest.mark.parametrize("make", [UnlearningFineTune, StampedUnlearning])
@pytest.mark.parametrize("case", SIZES)
def test_suspect_changes_where_a_class_is_flagged_and_only_there(make, case, victim, tmp_path):
    _, path = left(tmp_path, victim, case)
    stage = tiny.fit(make(victim, path), tiny.data(batch_size=8), max_epochs=2)
    stage.export(tmp_path / "clean")
    clean = open_bundle(tmp_path / "clean", "suspect")
    changed = tiny.moved(tiny.tensors(tiny.classifier()), tiny.tensors(clean.build()))
    assert bool(changed) == (case != "none")
    assert clean.numbers["target_class"] == {"one": 2, "several": 0, "none": None}[case]
    assert set(clean.info["inputs"]) == {"suspect", "generator"}


def test_a_fifth_of_the_batch_is_stamped_under_its_true_labels():
    trigger = MaskedPattern.holding(torch.ones(1, 16, 16), torch.full((3, 16, 16), 2 / 3))
    stage = StampedUnlearning(tiny.classifier(), trigger)
    stage.configure_model()
    batch = {"image": torch.zeros(20, 3, 16, 16), "label": torch.arange(20) % 4, "index": torch.arange(20)}
    drawn = []
    for seed in range(2):
        torch.manual_seed(seed)
        mixed = stage.mixed(batch)
        images = mixed["image"]
        assert torch.equal(mixed["label"], batch["label"])
        rows = images.flatten(1).amax(1) > 0
        assert rows.sum() == 4
        torch.testing.assert_close(images[rows], torch.full((4, 3, 16, 16), 2 / 3))
        drawn.append(rows)
    assert not torch.equal(*drawn)


@pytest.mark.parametrize("share", [0.0, 1.2])
def test_share_out_of_range_is_refused(share):
    with pytest.raises(ValueError, match="share of stamped images"):
        StampedUnlearning("x", "y", share=share)


def test_evaluation_reports_the_distance_to_the_true_trigger(victim, tmp_path):
    _, path = left(tmp_path, victim, "one")
    data = tiny.data(tiny.attack())
    results = tiny.tested(Evaluation(path), data)
    suspect, trigger = tiny.classifier().eval(), open_bundle(path).build()
    batches = [data.images(batch) for batch in data.loader("triggered")]
    with torch.no_grad():
        recovered, true = (
            torch.cat([suspect.features(make(batch)) for batch in batches])
            for make in (lambda b: trigger(b["original"]), lambda b: b["image"])
        )
    counted = torch.cat([batch["eligible"] & batch["valid"] for batch in batches])
    expected = float(feature_distance(recovered, true, counted))
    assert results["test/feature_distance"] == pytest.approx(expected, rel=1e-4)
    assert results["test/target_found"] == results["test/target_top"] == 0
    assert set(tiny.tested(Evaluation(path), tiny.data())) == {"test/flagged_classes"}


def test_distance_of_several_triggers_does_not_depend_on_the_batches(victim, tmp_path):
    _, path = left(tmp_path, victim, "several")
    found = [
        tiny.tested(Evaluation(path), tiny.data(tiny.attack(), eval_batch_size=size))["test/feature_distance"]
        for size in (1, 7, 30)
    ]
    assert found == pytest.approx([found[0]] * 3, rel=1e-5)
