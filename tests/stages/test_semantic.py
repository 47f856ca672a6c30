"""Stages, tests and reports under an attack whose trigger rows carry themselves."""

import copy

import pytest
import semantic_parts
import tiny
import torch

from lit_backdoor.bundle import open_bundle
from lit_backdoor.defenses.btidbf import BTIDBFAdaptiveTraining
from lit_backdoor.defenses.tac import TACDetection
from lit_backdoor.report.sections.gallery import _alike
from lit_backdoor.stages import Evaluation, PoisonedTraining
from lit_backdoor.stages.evaluation import GeneratorEvaluator, TriggerEvaluator


@pytest.fixture(scope="module")
def victim():
    return tiny.fit(PoisonedTraining(tiny.classifier()), semantic_parts.data(), max_epochs=6).classifier


@torch.no_grad()
def test_accuracy_is_of_rows_without_and_success_of_rows_with_the_trigger(victim):
    found = tiny.tested(Evaluation(victim), semantic_parts.data())
    rows = semantic_parts.Spotted().test()
    guess = victim.eval()(rows.images(torch.arange(len(rows))).float() / 255).argmax(1)
    spot = rows.columns["spot"] == 1
    counted = spot & (rows.labels != 0)
    right = guess == rows.labels
    assert found["test/acc"] == pytest.approx(right[~spot].float().mean().item())
    assert found["test/asr"] == pytest.approx((guess == 0)[counted].float().mean().item())
    assert found["test/ra"] == pytest.approx(right[counted].float().mean().item())


def test_the_backdoor_is_learned(victim):
    found = tiny.tested(Evaluation(victim), semantic_parts.data())
    assert found["test/asr"] > 0.9


def test_the_suspects_bundle_names_the_attack(victim, tmp_path):
    stage = tiny.fit(PoisonedTraining(copy.deepcopy(victim)), semantic_parts.data())
    stage.export(tmp_path / "victim")
    attack = open_bundle(tmp_path / "victim").attack()
    assert (attack.trigger.column, attack.rate_of) == ("spot", "carriers")


@torch.no_grad()
def test_what_needs_an_image_with_and_without_does_not_exist(victim):
    for batch in semantic_parts.data().triggered_batches(torch.device("cpu")):
        for evaluator in (GeneratorEvaluator, TriggerEvaluator):
            measured = evaluator(None, victim, tiny.unet())
            measured.update(batch)
            assert measured.compute() == {}


def test_fidelity_of_perturbations_is_not_a_number(victim, tmp_path):
    data = semantic_parts.data()
    tiny.fit(PoisonedTraining(copy.deepcopy(victim)), data).export(tmp_path / "victim")
    stage = TACDetection(str(tmp_path / "victim"))
    tiny.trainer().predict(stage, datamodule=data, return_predictions=False)
    stage.export(tmp_path / "targets")
    found = tiny.tested(Evaluation(str(tmp_path / "targets")), semantic_parts.data())
    assert torch.tensor([value for name, value in found.items() if "tac_" in name]).isnan().all()
    assert "test/target_found" in found


def test_an_attack_that_needs_to_stamp_says_so(victim):
    with pytest.raises(ValueError, match="each image is needed with and without it, got SemanticTrigger"):
        tiny.fit(BTIDBFAdaptiveTraining(copy.deepcopy(victim)), semantic_parts.data(), max_epochs=3)


def test_pictures_of_the_same_class_stand_for_the_clean_ones():
    labels = torch.tensor([1, 0, 1, 2, 1])
    assert _alike(labels, torch.tensor([1, 1, 2, 1, 1, 0])).tolist() == [0, 2, 3, 4, 0, 1]
