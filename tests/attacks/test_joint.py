"""One loss and one step for a victim and its trigger: dynamic and Input-aware."""

import pytest
import tiny
import torch
from torch.nn import functional as F

from lit_backdoor.attacks import InputAwareMask, InputAwareTraining
from lit_backdoor.bundle import open_bundle
from lit_backdoor.functional.input_aware import diversity_loss
from lit_backdoor.stages import JointTraining
from lit_backdoor.triggers import Attack, DynamicPatch, InputAware


def sgd(parameters):
    return torch.optim.SGD(parameters, lr=0.05)


def plan(trigger):
    return Attack(trigger, target=0, rate=None)


def input_aware():
    return plan(InputAware(tiny.unet(), tiny.unet(1)))


def joint(cls=JointTraining, **options):
    given = {"optimizer": sgd, "trigger_optimizer": sgd, "schedule": "constant", **options}
    return cls(tiny.classifier(), **given)


def batch(count=20):
    images = torch.rand(count, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    return {"image": images, "label": torch.arange(count) % 4, "index": torch.arange(count)}


def test_both_nets_follow_the_gradient_of_one_loss():
    torch.manual_seed(0)
    attack = plan(DynamicPatch(5, latent=10, width=8))
    stage, before = joint(), {}
    classifier, net = tiny.tensors(stage.classifier), tiny.tensors(attack.trigger)

    class Watch(tiny.pl.Callback):
        def on_train_batch_end(self, trainer, module, outputs, given, batch_idx):
            before["grad"] = {n: p.grad.clone() for n, p in module.named_parameters() if p.grad is not None}

    tiny.fit(stage, tiny.data(attack), limit_train_batches=1, callbacks=[Watch()])
    for prefix, module, old in (("classifier", stage.classifier, classifier), ("trigger", stage.trigger, net)):
        for name, weight in module.named_parameters():
            torch.testing.assert_close(weight, old[name] - 0.05 * before["grad"][f"{prefix}.{name}"])


def test_masks_are_trained_alone_and_then_stay(tmp_path):
    attack = input_aware()
    net, masks = tiny.tensors(attack.trigger.generator), tiny.tensors(attack.trigger.masker)
    stage = tiny.fit(InputAwareMask(), tiny.data(attack))
    assert not tiny.moved(net, tiny.tensors(attack.trigger.generator))
    assert tiny.moved(masks, tiny.tensors(attack.trigger.masker))
    stage.export(tmp_path / "masks")
    bundle = open_bundle(tmp_path / "masks", "attack")
    trained = bundle.attack()
    masks = tiny.tensors(trained.trigger.masker)
    assert not tiny.moved(masks, tiny.tensors(attack.trigger.masker))

    tiny.fit(joint(InputAwareTraining), tiny.data(trained))
    assert not tiny.moved(masks, tiny.tensors(trained.trigger.masker))
    assert tiny.moved(net, tiny.tensors(trained.trigger.generator))


def test_the_loss_of_masks_is_the_papers():
    stage = InputAwareMask(density=0.2, small=3.0, diverse=0.5)
    tiny.fit(stage, tiny.data(input_aware()), limit_train_batches=1)
    given = batch()
    masks, images = stage.trigger.masks(given["image"]), given["image"]
    over = (masks - 0.2).clamp(min=0).mean()
    distance = [
        (images[i] - images[i - 1]).square().mean().sqrt() / ((masks[i] - masks[i - 1]).square().mean().sqrt() + 1e-7)
        for i in range(20)
    ]
    torch.testing.assert_close(stage.losses(given)["loss"], 3 * over + 0.5 * torch.stack(distance).mean())


def test_the_loss_of_patterns_pairs_poisoned_rows_with_the_covers_partners():
    stage = joint(InputAwareTraining, poison=0.1, cover=0.1, diverse=2.0)
    tiny.fit(stage, tiny.data(input_aware()), limit_train_batches=1)
    stage.eval()
    given, trigger = batch(), stage.trigger
    images = given["image"]
    stamped, index = images.clone(), given["index"]
    stamped[:2] = trigger(images[:2], index[:2])
    stamped[2:4] = trigger.cover(images[2:4], index[2:4], images[6:8])
    labels = given["label"].clone()
    labels[:2] = 0
    diversity = diversity_loss(images[:2], images[6:8], trigger.patterns(images[:2]), trigger.patterns(images[6:8]))
    expected = F.cross_entropy(stage.classifier(stamped), labels) + 2 * diversity
    torch.testing.assert_close(stage.losses(given)["loss"], expected)


def test_accuracy_under_another_images_trigger_is_measured():
    data = tiny.data(input_aware())
    stage = tiny.fit(joint(InputAwareTraining), data)
    found = tiny.tested(stage, data)["test/cross_acc"]
    view = data.get_view("triggered")
    images = view.rows.images(view.index).float() / 255
    partners = view.rows.images(view.partner).float() / 255
    with torch.no_grad():
        crossed = stage.classifier.eval()(stage.trigger.cover(images, view.index, partners)).argmax(1)
    assert found == pytest.approx(float((crossed == view.clean_label).float().mean()), abs=1e-6)


def test_a_trigger_of_another_kind_is_refused():
    with pytest.raises(ValueError, match="Expected a trigger of class InputAware for InputAwareMask, got Patch"):
        tiny.fit(InputAwareMask(), tiny.data(tiny.attack()))
    with pytest.raises(ValueError, match="Expected a trigger of class InputAware"):
        tiny.fit(joint(InputAwareTraining), tiny.data(plan(DynamicPatch())))


@pytest.mark.parametrize("options", [{"density": 1.0}, {"small": -1.0}, {"diverse": -1.0}])
def test_settings_of_masks_are_checked(options):
    with pytest.raises(ValueError, match="Expected a density"):
        InputAwareMask(**options)


@pytest.mark.parametrize("options", [{"cover": 0.0}, {"diverse": -1.0}, {"poison": 0.0}])
def test_settings_are_checked(options):
    with pytest.raises(ValueError, match="Expected"):
        joint(InputAwareTraining, **options)
