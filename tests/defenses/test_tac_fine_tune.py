"""Fine-tunes that make the perturbation harmless."""

import copy

import pytest
import tiny
import torch
from tac_parts import report, solved
from torch.nn import functional as F

from lit_backdoor.defenses.tac import Program, TACFineTune, TACMovementFineTune, TACStampFineTune
from lit_backdoor.functional.latent_shift import movement_along
from lit_backdoor.models.latents import latents_and_logits
from lit_backdoor.stages.stamp_search import StampSearch


def first_step(stage, datamodule):
    """The gradients of the first step, and the batch it saw."""
    kept = {}
    stage.on_before_optimizer_step = lambda optimizer: kept.update(
        {name: weight.grad.clone() for name, weight in stage.classifier.named_parameters()}
    )
    steps = tiny.recorded(stage)
    tiny.fit(stage, datamodule, max_steps=1)
    batch = steps[0].pop("batch")
    return {**kept, "batch": (batch["image"], batch["label"]), "logged": steps[0]}


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
    begun = stage.begin_epoch
    stage.begin_epoch = lambda: (nets.append(copy.deepcopy(stage.classifier)), begun())[0]
    tiny.fit(stage, tiny.data(), max_epochs=2)
    expected = solved(nets[-1], tiny.data())[[2]].float()
    torch.testing.assert_close(stage.perturbations, expected, rtol=1e-4, atol=1e-6)


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
    found, search = [], stage.search.stamped

    def keep(_self, net, images, movement):
        found.append((images, search(net, images, movement)))
        return found[-1][1]

    monkeypatch.setattr(StampSearch, "stamped", keep)
    kept = first_step(stage, tiny.data())
    logged = {name: float(value) for name, value in kept.pop("logged").items()}
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


def test_latents_are_shifted_beside_the_stamps_in_the_first_epochs_alone(suspect, tmp_path):
    def make():
        search = StampSearch(weight=0.0)  # what is left is the shifted term
        options = {"search": search, "beta": 0.6, "shift": 0.5, "shift_epochs": 2, "batch_norm": "eval"}
        return TACStampFineTune(suspect, report(tmp_path / "found", [2]), **options)

    kept = first_step(make(), tiny.data())
    images, labels = kept.pop("batch")
    classifier = tiny.classifier().eval()
    latents, logits = latents_and_logits(classifier, images)
    shifted, rows = classifier.final_linear(latents + 2 + torch.arange(32.0)), labels != 2
    (F.cross_entropy(logits, labels) + 0.6 * 0.5 * F.cross_entropy(shifted[rows], labels[rows])).backward()
    for name, weight in classifier.named_parameters():
        torch.testing.assert_close(kept[name], weight.grad, rtol=1e-4, atol=1e-6)

    stage = make()
    steps = tiny.recorded(stage)
    tiny.fit(stage, tiny.data(), max_epochs=4)
    assert [bool(step["shifted_loss"] > 0) for step in steps] == [True, True, False, False]
