"""Detection of the target class by the size of its perturbation, and the test of what it leaves."""

import pytest
import tiny
import torch
from tac_parts import detected, report, solved, twins
from torch.nn import functional as F

from lit_backdoor.bundle import open_bundle
from lit_backdoor.defenses.tac import Program, TACDetection, TACOutlierDetection
from lit_backdoor.models import TimmClassifier
from lit_backdoor.models.latents import latents_and_logits
from lit_backdoor.stages import Evaluation, TargetReport


def test_detection_leaves_the_perturbations_of_the_root_set_and_their_norms(suspect, tmp_path):
    stage = TACDetection(suspect, Program(margin=0.1), Program(margin=1.0, quantile=0.9))
    bundle = open_bundle(detected(stage, tmp_path / "found", precision="bf16-mixed"), "targets")
    expected = solved(tiny.classifier(), tiny.data(), margin=0.1)
    norms = solved(tiny.classifier(), tiny.data(), margin=1.0, quantile=0.9).norm(dim=1)
    torch.testing.assert_close(bundle.tensors()["perturbations"], expected.float(), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(bundle.tensors()["statistic"], norms.float(), rtol=1e-4, atol=1e-6)
    assert 0 <= bundle.numbers["p_value"] <= 1
    assert bundle.numbers["top_class"] == int(norms.argmin())


def test_both_tests_flag_a_planted_class_and_leave_others(suspect):
    planted = torch.tensor([5.7, 5.8, 6.7, 1.4, 7.1, 6.7, 7.0, 6.9, 5.9, 6.3])
    for stage in (TACDetection(suspect), TACOutlierDetection(suspect)):
        for norms, flagged in ((planted, (3,)), (torch.linspace(5, 7, 10), ())):
            stage._found = torch.ones(10, 32), norms
            assert stage.report().flagged == flagged


def test_second_class_is_flagged_after_the_first():
    norms = torch.tensor([6.1, 0.1, 6.2, 5.9, 6.0, 3.9, 6.1, 6.0, 5.9, 6.2])
    assert TargetReport.by_smallest(norms).flagged == (1, 5)
    assert TargetReport.by_smallest(norms[[0, 2, 3]]).flagged == ()


def test_report_before_the_run_is_refused(suspect):
    with pytest.raises(ValueError, match="call predict before"):
        TACDetection(suspect).report()


def test_evaluation_compares_with_the_true_change(suspect, tmp_path):
    path = detected(TACDetection(suspect), tmp_path / "found")
    found = tiny.tested(Evaluation(path), tiny.data(tiny.attack()))
    classifier, datamodule = tiny.classifier().eval(), tiny.data(tiny.attack())
    datamodule.setup()
    changes = []
    for batch in datamodule.loader("triggered"):
        batch = datamodule.images(batch)
        with torch.no_grad():
            triggered, clean = (latents_and_logits(classifier, batch[k])[0] for k in ("image", "original"))
        changes.append((triggered - clean)[batch["valid"] & batch["eligible"]])
    shifts = open_bundle(path).tensors()["perturbations"]
    cosines = F.cosine_similarity(shifts, torch.cat(changes).mean(0)[None])
    assert found["test/tac_cosine"] == pytest.approx(cosines[0].item(), abs=1e-4)
    assert found["test/tac_cosine_other"] == pytest.approx(cosines[1:].max().item(), abs=1e-4)
    assert {"test/tac_rank_correlation", "test/tac_precision_1", "test/target_found"} <= found.keys()


def test_evaluation_without_an_attack_is_nan(suspect, tmp_path):
    found = tiny.tested(Evaluation(detected(TACDetection(suspect), tmp_path / "found", tiny.data())), tiny.data())
    assert found["test/tac_cosine"] != found["test/tac_cosine"]
    assert "test/target_found" not in found


def test_two_classes_are_refused_before_anything_is_solved():
    torch.manual_seed(0)
    stage = TACDetection(TimmClassifier("resnet18", num_classes=2, input_size=16, channels=4))
    with pytest.raises(ValueError, match="at least three classes for TACDetection"):
        stage.configure_model()


def test_norms_are_judged_where_half_a_class_of_images_may_stay_behind(suspect, tmp_path):
    bundle = open_bundle(detected(TACDetection(suspect), tmp_path / "found"))
    expected = solved(tiny.classifier(), tiny.data(), quantile=1 - 0.5 / 4).norm(dim=1)
    expected[expected == 0] = torch.inf  # of classes that need no change there is nothing to judge
    torch.testing.assert_close(bundle.tensors()["statistic"].double(), expected, rtol=1e-4, atol=1e-6)


def test_suspect_that_always_answers_one_class_is_named(tmp_path):
    classifier = tiny.classifier()
    with torch.no_grad():
        classifier.final_linear.bias[2] = 100
    with pytest.warns(UserWarning, match="gives nearly all root images to class 2 as they are"):
        detected(TACDetection(classifier), tmp_path / "found")


def test_classes_that_need_no_perturbation_are_left_out(tmp_path):
    net = tiny.classifier()
    with torch.no_grad():
        net.final_linear.bias[2] += 1e3  # all images belong to it anyway
    stage = TACDetection(net, level=0.99)
    with pytest.warns(UserWarning, match="nearly all root images to class 2 as they are.*it is left out"):
        detected(stage, tmp_path / "one")
    assert stage.report().statistic[2].isinf()
    assert stage.report().top != 2
    assert 2 not in stage.report().flagged
    stage._found = stage._found[0], torch.tensor([1.0, torch.inf, torch.inf, 2.0])
    assert stage.report().flagged == ()


def test_slack_of_the_program_holds_for_the_norms_too(tmp_path):
    detected(TACDetection(twins(), Program(slack=1.0)), tmp_path / "slack")
    with pytest.raises(ValueError, match="Give the program a slack"):
        detected(TACDetection(twins()), tmp_path / "none")


def test_perturbations_are_compared_where_a_report_has_some(suspect, tmp_path):
    given = report(tmp_path / "r", [1], perturbations=False)
    assert not [name for name in tiny.tested(Evaluation(given), tiny.data()) if name.startswith("test/tac_")]
