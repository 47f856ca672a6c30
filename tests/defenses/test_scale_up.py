"""SCALE-UP: its copies, its scores, a trigger that it finds and one that it does not."""

import detector_parts as parts
import pytest
import tiny
import torch

from lit_backdoor.bundle import open_bundle
from lit_backdoor.defenses.scale_up import Scaled, ScaleUp


def test_copies_are_multiplied_and_cut_off_at_one():
    images = torch.rand(3, 3, 16, 16)
    for copy, factor in zip(Scaled(tiny.classifier(), (2.0, 9.0)).copies(images), (2, 9), strict=True):
        torch.testing.assert_close(copy, torch.minimum(factor * images, torch.tensor(1.0)))


def test_score_is_the_consistency_in_deviations_of_root_images_of_the_class():
    stage = ScaleUp(tiny.classifier(), false_alarms=0.1)
    tiny.trainer().predict(stage, datamodule=tiny.data(), return_predictions=False)
    rows = [(b["image"][b["valid"]], b["label"][b["valid"]]) for b in stage.passes("root")]
    (images, labels), net = (torch.cat(column) for column in zip(*rows, strict=True)), tiny.classifier().eval()
    with torch.no_grad():
        classes = net(images).argmax(1)
        kept = torch.stack([net((images * factor).clamp(0, 1)).argmax(1) == classes for factor in (3, 5, 7, 9, 11)])
    consistency, expected = kept.float().mean(0), torch.empty(len(images))
    for label in classes.unique():
        own = consistency[labels == label]
        usual = own if len(own) > 1 and own.std() > 0 else consistency
        compared = (consistency - usual.mean()) / (usual.std() if usual.std() > 0 else 1)
        expected[classes == label] = compared[classes == label]
    torch.testing.assert_close(stage.result().judge(images)["score"], expected)
    assert stage.numbers()["threshold"] == pytest.approx(float(expected.quantile(0.9)))


def test_threshold_that_is_given_stays():
    stage = ScaleUp(tiny.classifier(), threshold=0.5)
    tiny.trainer().predict(stage, datamodule=tiny.data(), return_predictions=False)
    assert stage.numbers()["threshold"] == 0.5


def test_trigger_that_outlasts_scaling_is_found_and_one_whose_color_is_cut_off_is_not():
    detector = parts.calibrated(ScaleUp(parts.suspect()))
    auroc, found, alarms = parts.judged(detector, parts.colored)
    assert auroc > 0.9
    assert found == 1.0
    assert alarms < 0.2

    def faint(images):
        return parts.colored(images, 0.6, 0.36)

    assert (detector(faint(parts.images(20)[0])).argmax(1) == 1).all()
    auroc, found, _ = parts.judged(detector, faint)
    assert auroc < 0.6
    assert found < 0.2


def test_bundle_judges_as_the_stage_does(tmp_path):
    stage = ScaleUp(tiny.classifier())
    tiny.trainer().predict(stage, datamodule=tiny.data(), return_predictions=False)
    stage.export(tmp_path / "bundle")
    images = torch.rand(5, 3, 16, 16)
    again = open_bundle(tmp_path / "bundle", "detector").build().judge(images)
    assert all(torch.equal(value, again[key]) for key, value in stage.result().judge(images).items())


def test_nothing_of_the_attack_reaches_it():
    one, two = parts.without_attack(lambda: ScaleUp(tiny.classifier()))
    assert all(torch.equal(one[key], two[key]) for key in one)


@pytest.mark.parametrize("factors", [(), (3.0, 1.0)])
def test_factors_that_change_nothing_are_refused(factors):
    with pytest.raises(ValueError, match="Expected factors above 1"):
        Scaled(tiny.classifier(), factors)
