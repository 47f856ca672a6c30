import copy

import pytest
import tiny
import torch
from torch.nn import functional as F

from lit_backdoor.bundle import open_bundle, save_bundle
from lit_backdoor.defenses.stamp_search import StampSearch
from lit_backdoor.defenses.tac import (
    Program,
    TACDetection,
    TACFineTune,
    TACMovementFineTune,
    TACOutlierDetection,
    TACPruning,
    TACStampFineTune,
)
from lit_backdoor.functional.latent_shift import movement_along, top_units
from lit_backdoor.functional.minimal_perturbation import minimal_perturbations, required_gains
from lit_backdoor.models import TimmClassifier
from lit_backdoor.models.latents import latents_and_logits
from lit_backdoor.stages import PerturbationEvaluation, TargetReport, evaluation_of


@pytest.fixture
def suspect(tmp_path):
    """A suspect bundle of random weights."""
    return str(save_bundle(tmp_path / "suspect", kind="suspect", module=tiny.classifier()).path)


def detected(stage, folder, datamodule=None, **options):
    datamodule = datamodule or tiny.data(tiny.attack())
    trainer = tiny.trainer(**options)
    trainer.predict(stage, datamodule=datamodule, return_predictions=False)
    stage.export(folder)
    return str(folder)


def solved(classifier, datamodule, **options):
    """The same by hand."""
    datamodule.setup()
    with torch.no_grad():
        batches = [datamodule.images(batch) for batch in datamodule.loader("root", shuffle=False)]
        latents = torch.cat([latents_and_logits(classifier.eval(), b["image"])[0][b["valid"]] for b in batches])
    last = classifier.final_linear
    return minimal_perturbations(last.weight.data, required_gains(last.weight.data, last.bias.data, latents, **options))


def report(folder, flagged, perturbations=True):
    """A bundle of target classes, as a detector leaves it."""
    tensors = {"flagged": torch.tensor(flagged, dtype=torch.long), "statistic": torch.ones(4), "index": torch.ones(4)}
    if perturbations:
        tensors["perturbations"] = torch.arange(4.0)[:, None] + torch.arange(32.0)
    numbers = {"target_class": flagged[0] if flagged else None, "top_class": 0}
    return str(save_bundle(folder, kind="targets", tensors=tensors, numbers=numbers).path)


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
    found = tiny.tested(evaluation_of(path), tiny.data(tiny.attack()))
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
    found = tiny.tested(evaluation_of(detected(TACDetection(suspect), tmp_path / "found", tiny.data())), tiny.data())
    assert found["test/tac_cosine"] != found["test/tac_cosine"]
    assert "test/target_found" not in found


@pytest.mark.parametrize("make", [TACDetection, lambda s: TACFineTune(s, 0), lambda s: TACPruning(s, 0)])
def test_suspect_without_a_final_linear_layer_is_refused(make):
    classifier = tiny.classifier()
    classifier.num_classes = 5  # no layer has as many outputs
    with pytest.raises(ValueError, match="linear layer with 5 outputs, got none"):
        make(classifier).configure_model()


def first_step(stage, datamodule):
    """The gradients of the first step, and the batch it saw."""
    kept = {}
    stage.on_before_optimizer_step = lambda optimizer: kept.update(
        {name: weight.grad.clone() for name, weight in stage.classifier.named_parameters()}
    )
    original = stage.lesson
    stage.lesson = lambda batch: kept.setdefault("batch", original(batch))
    tiny.fit(stage, datamodule, max_steps=1)
    return kept


def test_first_step_is_the_loss_as_written(suspect, tmp_path):
    path = report(tmp_path / "found", [2])
    kept = first_step(TACFineTune(suspect, path, beta=0.5, batch_norm="eval"), tiny.data())
    images, labels = kept.pop("batch")
    classifier = tiny.classifier().eval()
    latents, logits = latents_and_logits(classifier, images)
    shifted, rows = classifier.final_linear(latents + 2 + torch.arange(32.0)), labels != 2
    (F.cross_entropy(logits, labels) + 0.5 * F.cross_entropy(shifted[rows], labels[rows])).backward()
    for name, weight in classifier.named_parameters():
        torch.testing.assert_close(kept[name], weight.grad, rtol=1e-4, atol=1e-6)


def test_several_flagged_classes_are_all_treated(suspect, tmp_path):
    stage = tiny.fit(TACFineTune(suspect, report(tmp_path / "found", [3, 1])), tiny.data())
    assert stage.outcome().numbers["target_class"] == 3
    assert stage.outcome().numbers["targets"] == [3, 1]
    assert stage.perturbations[:, 0].tolist() == [3.0, 1.0]


@pytest.mark.parametrize("kind", [TACFineTune, TACMovementFineTune, TACStampFineTune])
def test_nothing_flagged_leaves_the_suspect_as_it_was(kind, suspect, tmp_path):
    stage = tiny.fit(kind(suspect, report(tmp_path / "found", [])), tiny.data(), max_epochs=2, limit_val_batches=1)
    assert stage.trainer.current_epoch == 2  # complete, so that its bundle is written
    assert not tiny.moved(tiny.tensors(tiny.classifier()), tiny.tensors(stage.classifier))
    assert stage.outcome().numbers == {"target_class": None, "targets": [], "norms": []}


@pytest.mark.parametrize("by_hand", [True, False])
def test_without_perturbations_they_are_computed_from_the_root_set(by_hand, suspect, tmp_path):
    target = 2 if by_hand else report(tmp_path / "found", [2], perturbations=False)
    stage = tiny.fit(TACFineTune(suspect, target, program=Program(margin=0.5)), tiny.data(), max_epochs=2)
    expected = solved(tiny.classifier(), tiny.data(), margin=0.5)[[2]].float()
    torch.testing.assert_close(stage.perturbations, expected, rtol=1e-4, atol=1e-6)


def test_refreshed_perturbations_are_those_of_the_net_before_the_last_epoch(suspect, tmp_path):
    nets = []
    stage = TACFineTune(suspect, report(tmp_path / "found", [2]), refresh=True)
    begun = stage.on_train_epoch_start
    stage.on_train_epoch_start = lambda: (nets.append(copy.deepcopy(stage.classifier)), begun())[0]
    tiny.fit(stage, tiny.data(), max_epochs=2)
    expected = solved(nets[-1], tiny.data())[[2]].float()
    torch.testing.assert_close(stage.perturbations, expected, rtol=1e-4, atol=1e-6)


def test_perturbations_of_another_suspect_are_refused(tmp_path):
    path = report(tmp_path / "found", [1])
    with pytest.raises(ValueError, match=r"perturbations \[4, 64\] .* got \[4, 32\]"):
        TACFineTune(tiny.classifier(channels=8), path).configure_model()


def test_movement_is_that_since_the_suspect_as_it_was(suspect, tmp_path):
    kept = first_step(TACMovementFineTune(suspect, report(tmp_path / "found", [2]), beta=0.5), tiny.data())
    images, labels = kept.pop("batch")
    classifier = tiny.classifier().train()  # batch statistics move the latents before any weight does
    latents, logits = latents_and_logits(classifier, images)
    before = latents_and_logits(tiny.classifier().eval(), images)[0]
    shift = 2 + torch.arange(32.0)[None]
    (F.cross_entropy(logits, labels) + 0.5 * movement_along(latents, before, shift)).backward()
    for name, weight in classifier.named_parameters():
        torch.testing.assert_close(kept[name], weight.grad, rtol=1e-4, atol=1e-6)


def test_stamps_are_those_that_move_latents_along_the_perturbation_and_their_loss_is_added(
    suspect, tmp_path, monkeypatch
):
    stage = TACStampFineTune(
        suspect,
        report(tmp_path / "found", [2]),
        search=StampSearch(weight=0.5, steps=8, smallest=1.0),
        movement=4.0,
        beta=0.6,
        batch_norm="eval",
    )
    found, logged = [], {}
    log, search = stage.log_train, stage.search.stamped

    def keep(_self, net, images, movement):
        found.append((images, search(net, images, movement)))
        return found[-1][1]

    monkeypatch.setattr(StampSearch, "stamped", keep)
    stage.log_train = lambda size, **values: (
        logged.update({k: float(v) for k, v in values.items()}) or log(size, **values)
    )
    kept = first_step(stage, tiny.data())
    images, labels = kept.pop("batch")
    [(clean, stamped)] = found
    assert torch.equal(clean, images)

    net = tiny.classifier().eval()
    shift = 2 + torch.arange(32.0)[None]

    def along(x):
        return float((latents_and_logits(net, x)[0] @ shift[0])[labels != 2].mean() / shift.square().sum())

    noise = (images + 0.2 * torch.randn_like(images[:1]).sign()).clamp(0, 1)
    assert along(stamped) > max(along(images), along(noise))
    assert logged["stamped_loss"] == pytest.approx(float(F.cross_entropy(net(stamped), labels)), rel=1e-4)
    latents, logits = latents_and_logits(net, images)
    moved = ((latents_and_logits(net, stamped)[0] - latents) @ shift[0] / shift.square().sum())[labels != 2].mean()
    assert moved > 0
    own = 0.5 * (F.cross_entropy(net(stamped), labels) + 4 * moved)
    (F.cross_entropy(logits, labels) + 0.6 * own).backward()
    for name, weight in net.named_parameters():
        torch.testing.assert_close(kept[name], weight.grad, rtol=1e-3, atol=1e-5)


def test_pruning_cuts_the_largest_units_and_nothing_else(suspect, tmp_path):
    stage = TACPruning(suspect, 2, share=0.1)
    tiny.trainer().predict(stage, datamodule=tiny.data(), return_predictions=False)
    units = top_units(solved(tiny.classifier(), tiny.data())[[2]], 0.1)
    before, after = tiny.classifier().final_linear.weight.data, stage.classifier.final_linear.weight.data
    assert len(units) == 3
    assert not after[:, units].any()
    left = [unit for unit in range(32) if unit not in units]
    assert torch.equal(after[:, left], before[:, left])
    assert stage.outcome().numbers == {"target_class": 2, "cut_units": units.tolist()}
    nothing = TACPruning(suspect, report(tmp_path / "found", []))
    tiny.trainer().predict(nothing, datamodule=tiny.data(), return_predictions=False)
    assert not tiny.moved(tiny.tensors(tiny.classifier()), tiny.tensors(nothing.classifier))
    assert nothing.outcome().numbers["target_class"] is None


@pytest.mark.parametrize("bad", [{"margin": -1.0}, {"quantile": 0.0}, {"quantile": 1.1}, {"slack": 0.0}])
def test_program_out_of_range_is_refused(bad):
    with pytest.raises(ValueError, match=f"program.{next(iter(bad))}"):
        Program(**bad)


def test_options_out_of_range_are_refused(suspect):
    with pytest.raises(ValueError, match="beta to be 0 or more"):
        TACFineTune(suspect, 0, beta=-1.0)
    with pytest.raises(ValueError, match="level of the test"):
        TACDetection(suspect, level=0.0)
    with pytest.raises(ValueError, match="share of units"):
        TACPruning(suspect, 0, share=1.0)
    with pytest.raises(ValueError, match="from 0 to 3, got 7"):
        TACFineTune(suspect, 7).configure_model()


def test_perturbations_found_on_another_suspect_are_refused(suspect, tmp_path):
    found = detected(TACDetection(suspect), tmp_path / "found")
    other = save_bundle(tmp_path / "other", kind="suspect", module=tiny.classifier(seed=1)).path
    for make in (TACFineTune, TACPruning):
        with pytest.raises(ValueError, match="got those of another one"):
            tiny.trainer().validate(make(str(other), found), datamodule=tiny.data(tiny.attack()))


def test_two_classes_are_refused_before_anything_is_solved():
    torch.manual_seed(0)
    stage = TACDetection(TimmClassifier("resnet18", num_classes=2, input_size=16, channels=4))
    with pytest.raises(ValueError, match="at least three classes for TACDetection"):
        stage.configure_model()


def twins(same=(1, 3)):
    """A classifier that cannot tell two classes apart."""
    classifier = tiny.classifier()
    with torch.no_grad():
        for part in (classifier.final_linear.weight, classifier.final_linear.bias):
            part[same[1]] = part[same[0]]
    return classifier


def test_class_given_by_hand_does_not_depend_on_others_that_are_infeasible():
    stage = TACPruning(twins(), 0, share=0.1)
    tiny.trainer().predict(stage, datamodule=tiny.data(), return_predictions=False)
    assert len(stage.cut) == 3
    with pytest.raises(ValueError, match="send any latent to class 1.*the same as, or a mix of, those for 3"):
        tiny.trainer().predict(TACPruning(twins(), 1), datamodule=tiny.data(), return_predictions=False)


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


def test_units_that_nothing_changes_are_not_cut():
    assert top_units(torch.zeros(1, 32), 0.1).tolist() == []
    assert top_units(torch.eye(32)[[3, 3, 7]], 0.1).tolist() == [3, 7]


@pytest.mark.parametrize("make", [lambda nan: Program(margin=nan), lambda nan: TACFineTune("x", 0, beta=nan),
                                  lambda nan: TACStampFineTune("x", 0, movement=nan)])  # fmt: skip
def test_what_is_no_number_is_refused(make):
    with pytest.raises(ValueError, match="0 or more, got nan"):
        make(float("nan"))


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


def test_pruning_refuses_weights_that_cannot_be_set(tmp_path):
    net = tiny.classifier()
    torch.nn.utils.parametrizations.weight_norm(net.net.fc)
    with pytest.raises(ValueError, match="'fc' with a parametrization. Take it off"):
        tiny.trainer().predict(TACPruning(net, 1), datamodule=tiny.data(), return_predictions=False)


def test_perturbations_that_are_not_finite_are_refused(suspect, tmp_path):
    given = report(tmp_path / "r", [1])
    bundle = open_bundle(given)
    tensors = {**bundle.tensors(), "perturbations": torch.full((4, 32), torch.nan)}
    save_bundle(given, kind="targets", tensors=tensors, numbers=bundle.numbers)
    with pytest.raises(ValueError, match="finite perturbations"):
        tiny.fit(TACFineTune(suspect, given), tiny.data())


def test_perturbations_are_compared_where_a_report_has_some(suspect, tmp_path):
    given = report(tmp_path / "r", [1], perturbations=False)
    with pytest.raises(ValueError, match="with perturbations, such as TAC's"):
        tiny.tested(PerturbationEvaluation(given), tiny.data())


def test_settings_are_objects_of_their_class(suspect):
    with pytest.raises(ValueError, match=r"Expected program as Program\(…\) or None, got \{'margin': 1\}"):
        TACDetection(suspect, {"margin": 1})
