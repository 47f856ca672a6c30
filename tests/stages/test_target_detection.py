import pytest
import torch

from lit_backdoor.bundle import open_bundle, save_bundle
from lit_backdoor.stages import Evaluation, Stage, TargetDetection, TargetReport, targets_given
from lit_backdoor.stages.target_detection import read_report
from tests import tiny


class Told(TargetDetection):
    """A detector that is told its statistic."""

    verb = "predict"

    def __init__(self, suspect, statistic):
        super().__init__(suspect)
        self.statistic = torch.tensor(statistic)

    def predict_step(self, batch, batch_idx):
        pass

    def report(self):
        return TargetReport.by_mad(self.statistic, p_value=0.5)


def left(folder, statistic):
    Told(tiny.classifier(), statistic).export(folder)
    return str(folder)


def given(target):
    """A stage that was given a target."""
    stage = Stage()
    stage.given(target=target)
    return stage


def test_report_flags_by_mad_and_names_its_first_class(tmp_path):
    bundle = open_bundle(left(tmp_path / "a", [1.0, 9.0, 9.5, 8.5, 9.2, 0.5]), "targets")
    assert bundle.numbers["target_class"] == bundle.numbers["top_class"] == 5
    assert bundle.tensors()["flagged"].tolist() == [5, 0]
    assert bundle.numbers["p_value"] == 0.5


def test_nothing_flagged_leaves_no_target_but_a_top_class(tmp_path):
    numbers = open_bundle(left(tmp_path / "a", [9.0, 9.6, 8.5, 9.3]), "targets").numbers
    assert numbers["target_class"] is None
    assert numbers["top_class"] == 2


@pytest.mark.parametrize(("statistic", "found", "top"), [([1.0, 9, 9.5, 8.5], 1, 1), ([9, 1.0, 9.5, 8.5], 0, 0)])
def test_evaluation_compares_with_the_attack(tmp_path, statistic, found, top):
    stage = Evaluation(left(tmp_path / "a", statistic))
    results = tiny.tested(stage, tiny.data(tiny.attack()))
    assert results == {"test/flagged_classes": 1.0, "test/target_found": found, "test/target_top": top}


def test_evaluation_of_a_clean_model_counts_what_is_flagged(tmp_path):
    stage = Evaluation(left(tmp_path / "a", [1.0, 9, 9.5, 8.5]))
    assert tiny.tested(stage, tiny.data()) == {"test/flagged_classes": 1.0}


def test_targets_by_hand_from_a_report_and_from_one_without(tmp_path):
    assert targets_given(given(3), 4) == (3,)
    assert targets_given(given(left(tmp_path / "a", [1.0, 9, 9.5, 8.5])), 4) == (0,)
    assert targets_given(given(left(tmp_path / "b", [9.0, 9.6, 8.5, 9.3])), 4) == ()


def test_target_out_of_range_is_refused():
    with pytest.raises(ValueError, match="from 0 to 3, got 4"):
        targets_given(given(4), 4)


@pytest.mark.parametrize(
    "tensors",
    [
        {"flagged": torch.tensor([1])},
        {"statistic": torch.ones(4)},
        {"statistic": torch.tensor(1.0), "flagged": torch.tensor([1])},
        {"statistic": torch.ones(4), "flagged": torch.tensor([[1]])},
    ],
)
def test_bundle_that_is_no_report_is_refused(tensors, tmp_path):
    bundle = save_bundle(tmp_path / "t", kind="targets", tensors=tensors, numbers={"target_class": 1})
    with pytest.raises(ValueError, match="Expected a report on target classes in .*'statistic', a number per class"):
        read_report(bundle)
    with pytest.raises(ValueError, match="Expected a report on target classes"):
        targets_given(given(str(bundle.path)), 4)


def rooted(*labels):
    """Data whose root set has images of these classes."""
    module = tiny.data()
    view = module.get_view("root")
    view.label[:] = torch.tensor(labels)[torch.arange(len(view)) % len(labels)]
    return module


def test_classes_without_root_images_are_not_judged():
    stage = Told(tiny.classifier(), [0.1, 9, 9.5, 8.5])
    with pytest.warns(UserWarning, match="1 classes have fewer than 2 root images and are not judged: 0"):
        tiny.trainer().predict(stage, datamodule=rooted(1, 2, 3))
    assert stage.only_judged(stage.statistic).tolist() == [torch.inf, 9, 9.5, 8.5]


def test_fewer_than_two_judged_classes_are_refused():
    with pytest.raises(ValueError, match=r"root images in each of two or more classes for Told, got 24 images in 1"):
        tiny.trainer().predict(Told(tiny.classifier(), [1.0, 9, 9.5, 8.5]), datamodule=rooted(2))


@pytest.mark.parametrize("flagged", [[0.5], [4], [-1], [1, 1]])
def test_flagged_classes_that_are_none_are_refused(tmp_path, flagged):
    tensors = {"statistic": torch.ones(4), "flagged": torch.tensor(flagged)}
    bundle = save_bundle(tmp_path / "t", kind="targets", tensors=tensors)
    with pytest.raises(ValueError, match="flagged classes"):
        read_report(bundle)
