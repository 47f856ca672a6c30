"""STRIP: its copies, its threshold, a trigger that it finds and one that it does not."""

import detector_parts as parts
import pytest
import tiny
import torch
from scipy import stats

from lit_backdoor.bundle import open_bundle
from lit_backdoor.data import Split
from lit_backdoor.defenses.strip import STRIP, Superimposed


def test_copies_are_images_with_overlays_cut_off_at_one():
    detector, images = Superimposed(tiny.classifier(), count=2, weight=0.5), torch.rand(3, 3, 16, 16)
    detector.overlays.copy_(torch.rand(2, 3, 16, 16))
    for copy, overlay in zip(detector.copies(images), detector.overlays, strict=True):
        torch.testing.assert_close(copy, torch.minimum(images + overlay / 2, torch.tensor(1.0)))


def test_threshold_is_that_of_root_images_which_are_not_superimposed():
    stage = STRIP(tiny.classifier(), count=5, false_alarms=0.1)
    tiny.trainer().predict(stage, datamodule=tiny.data(), return_predictions=False)
    images = torch.cat([batch["image"][batch["valid"]] for batch in stage.passes("root")])
    chosen = torch.stack([(images - overlay).abs().amax((1, 2, 3)) == 0 for overlay in stage.result().overlays])
    assert chosen.any(1).all()
    scores = stage.result().judge(images)["score"][~chosen.any(0)]
    assert len(scores) == 24 - 5
    expected = stats.norm(float(scores.mean()), float(scores.std())).isf(0.1)
    assert stage.numbers()["threshold"] == pytest.approx(expected, rel=1e-4)


def test_trigger_that_decides_under_any_image_is_found_and_one_that_another_image_hides_is_not():
    detector = parts.calibrated(STRIP(parts.suspect()))
    auroc, found, alarms = parts.judged(detector, parts.colored)
    assert (auroc, found) == (1.0, 1.0)
    assert alarms < 0.2
    auroc, found, _ = parts.judged(detector, lambda images: images.flip(3))  # what images of class 1 look like
    assert auroc < 0.6
    assert found < 0.2


def test_stage_and_bundle_are_tested_alike(tmp_path):
    stage = STRIP(tiny.classifier(), count=4, table=str(tmp_path / "inputs.csv"))
    tiny.trainer().predict(stage, datamodule=tiny.data(tiny.attack()), return_predictions=False)
    stage.export(tmp_path / "bundle")
    assert len((tmp_path / "inputs.csv").read_text().splitlines()) == 1 + 30  # the clean view alone
    images = torch.rand(5, 3, 16, 16)
    again = open_bundle(tmp_path / "bundle", "detector").build().judge(images)
    assert all(torch.equal(value, again[key]) for key, value in stage.result().judge(images).items())
    untouched = STRIP(tiny.classifier(), count=4)  # one that is tested without a prediction before
    found = tiny.tested(untouched, tiny.data(tiny.attack()))
    assert found == pytest.approx(tiny.tested(stage, tiny.data(tiny.attack())), nan_ok=True, abs=0)
    assert set(found) == {"test/precision", "test/recall", "test/f1", "test/auroc"}


def test_nothing_of_the_attack_reaches_it():
    one, two = parts.without_attack(lambda: STRIP(tiny.classifier(), count=4))
    assert all(torch.equal(one[key], two[key]) for key in one)


@pytest.mark.parametrize(("options", "message"), [
    ({"count": 0}, "count of at least 1, got 0"),
    ({"weight": 0.0}, "weight to be above 0, got 0"),
    ({"count": 23}, "at least 25 root images, 23 to superimpose"),
])  # fmt: skip
def test_numbers_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        tiny.trainer().predict(STRIP(tiny.classifier(), **options), tiny.data(split=Split(root_pool=24)))


def test_share_out_of_range_is_refused():
    with pytest.raises(ValueError, match="false_alarms"):
        STRIP("path", false_alarms=0.0)
