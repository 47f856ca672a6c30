"""AWM: its loss and its search, a victim that it cleans and one that it cannot."""

import pruning_parts as parts
import pytest
import tiny
import torch
from repair_parts import measured, repaired, trained
from torch import nn
from torch.nn import functional as F

from lit_backdoor.bundle import open_bundle
from lit_backdoor.defenses.awm import AdversarialWeightMasking


def masked_by_hand(stage):
    """A net whose convolutions hold the masked weights."""
    net = tiny.classifier().eval()
    convs = [module for module in net.modules() if isinstance(module, nn.Conv2d)]
    assert len(convs) == len(stage.masks)
    with torch.no_grad():
        for conv, mask in zip(convs, stage.masks, strict=True):
            conv.weight.mul_(mask)
    return net


def test_loss_is_that_of_clean_and_changed_images_of_the_masked_net(suspect):
    stage = tiny.fit(AdversarialWeightMasking(suspect, alpha=0.7, sparsity=0.01), tiny.data(), max_steps=1)
    for mask in stage.masks:
        mask.data.uniform_(0, 1)
    stage.change.uniform_(-0.1, 0.1)
    images, labels = torch.rand(6, 3, 16, 16), torch.arange(6) % 4
    net = masked_by_hand(stage)
    size = sum(float(mask.detach().sum()) for mask in stage.masks)
    clean, changed = (F.cross_entropy(net(x), labels) for x in (images, (images + stage.change).clamp(0, 1)))
    found = stage.losses({"image": images, "label": labels})["loss"]
    torch.testing.assert_close(found, 0.7 * clean + 0.3 * changed + 0.01 * size, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(stage.result().eval()(images), net(images), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_change_moves_the_net_within_its_bound_and_is_searched_once_a_round():
    stage, changes = AdversarialWeightMasking(trained(), budget=0.05, round_epochs=2), []
    search = stage.worst_change
    stage.worst_change = lambda: changes.append(search()) or changes[-1]
    repaired(stage, 5)
    assert len(changes) == 3
    assert float(changes[0].abs().mean()) == pytest.approx(0.05, rel=1e-4)
    images, net = torch.cat([batch["image"] for batch in stage.passes("root")]), open_bundle(trained()).build().eval()
    sign = 0.05 * torch.sign(torch.randn(changes[0].shape, generator=torch.Generator().manual_seed(0)))
    flipped, by_chance = ((net(images + x).argmax(1) != net(images).argmax(1)).sum() for x in (changes[0], sign))
    assert flipped > by_chance


def test_bound_is_the_release_s_on_images_of_its_size_and_the_rate_may_fall_with_the_rounds():
    stage = AdversarialWeightMasking(tiny.classifier(), round_epochs=2, decay=0.5)
    assert stage.budget * 3 * 32 * 32 == pytest.approx(1000)
    tiny.fit(stage, tiny.data(), max_epochs=4)
    assert stage.optimizers().param_groups[0]["lr"] == pytest.approx(0.01 * 0.5**2)


@pytest.mark.slow
def test_it_removes_a_backdoor_by_a_change_that_is_large_enough():
    assert measured(open_bundle(trained()).build())[1] > 0.8
    stage = AdversarialWeightMasking(trained(), alpha=0.5, round_epochs=4)
    cleaned = measured(repaired(stage, 40, eval_batch_size=48).result())
    assert cleaned[0] > 0.8
    assert cleaned[1] < 0.4


@pytest.mark.slow
def test_without_a_budget_it_removes_none():
    stage = AdversarialWeightMasking(trained(), alpha=0.5, budget=1e-6, search_passes=1)
    kept = measured(repaired(stage, 40, eval_batch_size=48).result())
    assert kept[1] > 0.8


def test_masks_stay_in_their_range_and_nothing_else_changes(suspect):
    fast = lambda parameters: torch.optim.SGD(parameters, lr=10.0)  # noqa: E731
    stage = tiny.fit(AdversarialWeightMasking(suspect, optimizer=fast), tiny.data(), max_epochs=2)
    assert all(float(mask.min()) >= 0 and float(mask.max()) <= 1 for mask in stage.masks)
    convs = {f"{name}.weight" for name, each in stage.classifier.named_modules() if isinstance(each, nn.Conv2d)}
    moved = tiny.moved(tiny.tensors(open_bundle(suspect).build()), tiny.tensors(stage.result()))
    assert moved
    assert moved <= convs
    assert 0 < stage.numbers()["mean_mask"] < 1


def test_nothing_of_the_attack_reaches_it():
    assert parts.equal(*parts.without_attack(lambda: AdversarialWeightMasking(tiny.classifier())))


def test_resumed_run_equals_one_that_was_not_stopped(tmp_path):
    assert parts.equal(*parts.resumed(lambda: AdversarialWeightMasking(tiny.classifier(), round_epochs=2), tmp_path))


@pytest.mark.parametrize(
    "options", [{"alpha": 1.0}, {"budget": 0.0}, {"search_passes": 0}, {"sparsity": -1.0}, {"decay": 0.0}]
)
def test_numbers_out_of_range_are_refused(options):
    with pytest.raises(ValueError, match=f"Expected .*{next(iter(options))}"):
        AdversarialWeightMasking("path", **options)
