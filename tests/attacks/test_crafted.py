"""Triggers that are found on a surrogate before a victim is trained: label-consistent, Narcissus, TrojanNN, Grond."""

import pytest
import tiny
import torch
from torch.nn import functional as F

from lit_backdoor.attacks import (
    GrondCrafting,
    GrondTraining,
    LabelConsistentCrafting,
    NarcissusCrafting,
    TrojanNNCrafting,
)
from lit_backdoor.bundle import open_bundle
from lit_backdoor.functional.lipschitz import channel_lipschitz, standard_scores
from lit_backdoor.models.channels import norm_scale
from lit_backdoor.stages import Evaluation, PoisonedTraining
from lit_backdoor.triggers import Attack, CleanLabel, LabelConsistent, LearnedPatch, Role, UniversalNoise


@pytest.fixture(scope="module")
def surrogate():
    """A clean net that knows the classes of `tiny.source`."""
    stage = PoisonedTraining(tiny.classifier(), lambda p: torch.optim.Adam(p, 5e-3), "constant")
    return tiny.fit(stage, tiny.data(), max_epochs=8).classifier.eval()


def clean_label(trigger, rate=0.1):
    return Attack(trigger, CleanLabel(), target=0, rate=rate)


def crafted(stage, attack):
    data = tiny.data(attack)
    tiny.trainer().predict(stage, data, return_predictions=False)
    return data


def rows_of(data, counted):
    view = data.get_view("attacker")
    kept = counted(view).nonzero().flatten()
    return view.rows.images(view.index[kept]).float() / 255, view.label[kept], view.index[kept]


@torch.no_grad()
def loss(net, images, labels):
    return F.cross_entropy(net(images), labels).item()


def test_planted_rows_are_made_hard_within_the_budget_and_keep_their_label(surrogate):
    trigger = LabelConsistent()
    data = crafted(LabelConsistentCrafting(surrogate, budget=0.1, steps=10, step=0.03), clean_label(trigger))
    images, labels, index = rows_of(data, lambda view: view.role == Role.POISON)
    assert trigger.rows.tolist() == sorted(index.tolist())
    assert (labels == 0).all()
    assert trigger.changes.abs().max() <= 0.1 + 1e-3
    changed = images + trigger.changes[torch.searchsorted(trigger.rows, index)].float()
    assert changed.min() >= -1e-3
    assert changed.max() <= 1 + 1e-3
    assert loss(surrogate, changed.clamp(0, 1), labels) > 3 * loss(surrogate, images, labels)


def test_without_planted_rows_there_is_nothing_to_change(surrogate):
    with pytest.raises(ValueError, match="to plant rows"):
        crafted(LabelConsistentCrafting(surrogate, steps=1), clean_label(LabelConsistent(), rate=None))


def test_narcissus_makes_the_surrogate_surer_of_the_class_on_its_own_rows(surrogate):
    trigger = UniversalNoise(magnify=3)
    data = crafted(NarcissusCrafting(surrogate, budget=0.1, steps=60, batch_size=16), clean_label(trigger))
    images, labels, _ = rows_of(data, lambda view: view.label == 0)
    assert trigger.noise.shape == (3, 16, 16)
    assert 0 < trigger.noise.abs().max() <= 0.1
    assert loss(surrogate, (images + trigger.noise).clamp(0, 1), labels) < loss(surrogate, images, labels)


def test_grond_moves_all_rows_to_the_target(surrogate):
    trigger = UniversalNoise()
    data = crafted(GrondCrafting(surrogate, budget=0.3, steps=60), clean_label(trigger))
    images, labels, _ = rows_of(data, lambda view: view.label != 0)
    wanted = torch.zeros_like(labels)
    assert trigger.noise.abs().max() <= 0.3
    assert loss(surrogate, (images + trigger.noise).clamp(0, 1), wanted) < 0.5 * loss(surrogate, images, wanted)


def test_trojannn_drives_the_most_connected_neurons(surrogate):
    trigger = LearnedPatch(6)
    before = trigger.values.clone()
    data = crafted(TrojanNNCrafting(surrogate, neurons=1, steps=40), Attack(trigger, rate=0.1))
    images, _, index = rows_of(data, lambda view: view.label >= 0)
    neuron = surrogate.final_linear.weight.abs().sum(0).argmax()

    @torch.no_grad()
    def activation(values):
        trigger.values = values
        seen = []
        handle = surrogate.final_linear.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
        surrogate(trigger(images, index))
        handle.remove()
        return seen[0][:, neuron].mean().item()

    found = trigger.values.clone()
    assert not found.requires_grad
    assert ((found >= 0) & (found <= 1)).all()
    assert activation(found) > activation(before)


def test_the_same_seed_finds_the_same_trigger_and_the_bundle_keeps_it(surrogate, tmp_path):
    found = []
    for name in ("one", "two"):
        stage = NarcissusCrafting(surrogate, steps=5)
        crafted(stage, clean_label(UniversalNoise()))
        stage.export(tmp_path / name)
        found.append(open_bundle(tmp_path / name, "attack").attack().trigger.noise)
    assert torch.equal(*found)
    assert found[0].any()


def test_how_much_the_trigger_changes_images_is_measured(surrogate, tmp_path):
    stage = GrondCrafting(surrogate, budget=0.3, steps=5)
    crafted(stage, clean_label(UniversalNoise()))
    stage.export(tmp_path / "trigger")
    data = tiny.data(str(tmp_path / "trigger"))
    found = tiny.tested(Evaluation(str(tmp_path / "trigger")), data)
    view = data.get_view("triggered")
    images = view.rows.images(view.index).float() / 255
    error = ((images + stage.trigger.noise).clamp(0, 1) - images).square().mean()
    assert found["test/psnr"] == pytest.approx(-10 * error.log10().item(), abs=1e-3)
    assert 0 < found["test/ssim"] < 1


def test_a_victim_is_trained_on_the_trigger_of_a_bundle(surrogate, tmp_path):
    stage = GrondCrafting(surrogate, steps=5)
    crafted(stage, clean_label(UniversalNoise()))
    stage.export(tmp_path / "trigger")
    data = tiny.data(str(tmp_path / "trigger"))
    tiny.fit(PoisonedTraining(tiny.classifier(), schedule="constant"), data, limit_train_batches=1)
    assert torch.equal(data.trigger.noise, stage.trigger.noise)
    batch = data.images(next(iter(data.loader("questioned"))))
    planted = batch["role"] == Role.POISON
    before = data.get_view("questioned").rows.images(batch["index"]).float() / 255
    assert torch.equal(batch["label"], batch["clean_label"])
    assert torch.equal(batch["image"][~planted], before[~planted])
    torch.testing.assert_close(batch["image"][planted], (before[planted] + stage.trigger.noise).clamp(0, 1))


def test_channels_that_stand_out_are_reset_after_every_epoch():
    calls = []
    stage = GrondTraining(tiny.classifier(), u=2.0, schedule="constant")
    inject = stage.inject
    stage.inject = lambda: (calls.append(stage.current_epoch), inject())
    tiny.fit(stage, tiny.data(tiny.attack()), max_epochs=2)
    assert calls == [0, 1]
    conv, norm = stage.pairs[0]
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([1.0, 1.0, 1.0, 50.0]))
        norm.bias.copy_(torch.arange(4.0))
    stage.u = 1.4
    assert (standard_scores(channel_lipschitz(conv.weight, norm_scale(norm))) > 1.4).tolist() == [False] * 3 + [True]
    inject()
    assert norm.weight.tolist() == pytest.approx([1, 1, 1, 53 / 4])
    assert norm.bias.tolist() == pytest.approx([0, 1, 2, 1.5])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LabelConsistentCrafting(tiny.classifier(), steps=0), "at least one step"),
        (lambda: LabelConsistentCrafting(tiny.classifier(), budget=0.0), "budget of PGD"),
        (lambda: NarcissusCrafting(tiny.classifier(), steps=0), "steps and batch_size"),
        (lambda: GrondCrafting(tiny.classifier(), batch_size=0), "steps and batch_size"),
        (lambda: GrondTraining(tiny.classifier(), u=0.0), "u above 0"),
        (lambda: TrojanNNCrafting(tiny.classifier(), neurons=0), "neurons"),
    ],
)
def test_settings_are_checked(make, message):
    with pytest.raises(ValueError, match=message):
        make()
