"""ABS: a toy in which it finds the class and one in which it does not; what it measures."""

import pruning_parts as parts
import pytest
import tiny
import torch

from lit_backdoor.bundle import open_bundle
from lit_backdoor.defenses.abs import ABS
from lit_backdoor.stages.target_detection import read_report


def searched(suspect):
    return tiny.fit(ABS(suspect, area=0.1, weight=0.0), parts.data(), max_epochs=30)


def test_class_that_a_silent_channel_raises_is_flagged_and_none_without_it():
    stage = searched(parts.nearly_silent())
    assert stage.report().flagged == (1,)
    assert parts.rates(parts.nearly_silent(), lambda images: stage.trigger(1)(images))[1] == 1.0
    assert 1 not in searched(parts.without_backdoor()).report().flagged


def test_reasr_is_the_success_on_root_images_of_other_classes():
    stage = tiny.fit(ABS(tiny.classifier(), count=3), tiny.data(), max_epochs=2)
    images = torch.cat([batch["image"][batch["valid"]] for batch in stage.passes("root")])
    labels = torch.cat([batch["label"][batch["valid"]] for batch in stage.passes("root")])
    net = tiny.classifier().eval()
    for place, label in enumerate(stage.labels.tolist()):
        with torch.no_grad():
            found = net(stage._stamp(place)(images[labels != label])).argmax(1) == label
        assert float(stage.success[place]) == pytest.approx(float(found.float().mean()))
    report = stage.report()
    for label in range(tiny.CLASSES):
        own = stage.success[stage.labels == label]
        expected = 1 - float(own.max()) if len(own) else torch.inf
        assert float(report.statistic[label]) == pytest.approx(expected)


def test_report_and_best_stamp_are_exported(tmp_path):
    stage = tiny.fit(ABS(tiny.classifier(), threshold=1e-9), tiny.data(), max_epochs=1)
    stage.success.copy_(torch.linspace(0.1, 0.9, len(stage.success)))
    stage.export(tmp_path / "report")
    bundle = open_bundle(tmp_path / "report", "targets")
    report = read_report(bundle)
    assert set(report.flagged) == set(stage.labels.tolist())
    assert report.flagged[0] == report.top == int(stage.labels[-1])
    assert bundle.numbers["reasr"] == pytest.approx(0.9)


@pytest.mark.parametrize("options", [{"count": 0}, {"scale": 0.0}, {"area": 1.0}, {"weight": -1.0}, {"threshold": 0.0}])
def test_numbers_out_of_range_are_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        ABS("path", **options)
