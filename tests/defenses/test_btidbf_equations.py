import pytest
import torch
from btidbf_parts import ONE, purification, suspect, unet, unlearning
from torch.nn import functional as F

from lit_backdoor.defenses.btidbf import (
    BTIDBFInversion,
    BTIDBFPartialPurification,
    BTIDBFUnlearning,
    InversionSettings,
)
from lit_backdoor.functional.decoupling import replace_share


def test_inversion_step_is_equation_2():
    stage = BTIDBFInversion(
        suspect(), ONE, InversionSettings(epochs=1, tau=0.5, benign_weight=1.0, bound="branch"), unet()
    )
    stage.configure_model()
    stage.set_modes("invert")
    with torch.no_grad():
        stage.raw_mask.normal_()
    images = torch.rand(4, 3, 16, 16)
    loss = stage.invert_losses(stage.plan[1], {"image": images}, stage.generator)["loss"]
    net, mask = stage.net.module, torch.tanh(stage.raw_mask.detach()) / 2 + 0.5
    with torch.no_grad():
        difference = net.features(images) - net.features(stage.generator(images))
    expected = (difference * mask).square().mean() - (difference * (1 - mask)).square().mean()
    assert loss.item() == pytest.approx(float(expected), rel=1e-4, abs=1e-9)


def test_unlearning_step_is_equation_3():
    stage = unlearning(BTIDBFUnlearning)
    stage.configure_model()
    stage.classifier.eval()
    images, labels = torch.rand(4, 3, 16, 16), torch.tensor([0, 1, 2, 3])
    loss = stage.unlearning({"image": images, "label": labels})
    net = stage.classifier
    with torch.no_grad():
        generated = stage.generator(images)
        distance = (net.features(images) - net.features(generated)).square().mean()
        expected = F.cross_entropy(net(images), labels) + F.cross_entropy(net(generated), labels) + distance
    assert loss.item() == pytest.approx(float(expected), rel=1e-4)


def test_unlearning_of_the_release_replaces_a_share():
    stage = unlearning(share=0.1)
    stage.configure_model()
    stage.classifier.eval()
    images, labels = torch.rand(20, 3, 16, 16), torch.arange(20) % 4
    torch.manual_seed(5)
    loss = stage.unlearning({"image": images, "label": labels})
    torch.manual_seed(5)
    rows = torch.randperm(20)[:3]
    net = stage.classifier
    with torch.no_grad():
        mixed = images.clone()
        mixed[rows] = stage.generator(images)[rows]
        expected = F.cross_entropy(net(mixed), labels) + (net.features(images) - net.features(mixed)).square().mean()
    assert loss.item() == pytest.approx(float(expected), rel=1e-4)


def test_purifying_is_equation_4():
    stage = purification(image_weight=2.0, benign_weight=0.5)
    stage.configure_model()
    images, labels = torch.rand(4, 3, 16, 16), torch.tensor([0, 1, 2, 3])
    loss = stage.purifying({"image": images, "label": labels})
    net, unit = stage.net.module, sum(s**2 for s in stage.subject.std) / 3

    def part(inputs):
        out = stage.purifier(inputs)
        image = (out - images).square().mean() / unit
        feature = (net.features(out) - net.features(images)).square().mean()
        return F.cross_entropy(net(out), labels) + 2.0 * image + feature

    with torch.no_grad():
        expected = part(stage.generator(images)) + 0.5 * part(images)
    assert loss.item() == pytest.approx(float(expected), rel=1e-4)


@pytest.mark.parametrize("spread", [0.0, 500.0])
def test_purifying_of_the_release_replaces_a_share_and_weighs_large_changes(spread):
    stage = purification(BTIDBFPartialPurification, share=0.5, image_weight=2.0, far_weight=3.0)
    stage.configure_model()
    with torch.no_grad():
        stage.purifier.last.weight.mul_(spread)
    images, labels = torch.rand(4, 3, 16, 16), torch.tensor([0, 1, 2, 3])
    torch.manual_seed(5)
    loss = stage.purifying({"image": images, "label": labels})
    torch.manual_seed(5)
    net, unit = stage.net.module, sum(s**2 for s in stage.subject.std) / 3
    with torch.no_grad():
        mixed = replace_share(images, stage.generator, 0.5)
        out = stage.purifier(mixed)
        image = (out - images).square().mean() / unit
        feature = (net.features(out) - net.features(images)).square().mean()
        assert (image > 0.05) == (spread > 0)
        weight = 3.0 if spread else 2.0
        expected = F.cross_entropy(net(out), labels) + weight * image + feature
    assert loss.item() == pytest.approx(float(expected), rel=1e-4)


def test_hinge_keeps_to_the_bound():
    inversion = InversionSettings(epochs=1, tau=1e-4, bound="hinge", benign_weight=0.5)
    stage = BTIDBFInversion(suspect(), ONE, inversion, unet())
    stage.configure_model()
    stage.set_modes("invert")
    with torch.no_grad():
        stage.generator.last.weight.mul_(50)
    images = torch.rand(4, 3, 16, 16)
    loss = stage.invert_losses(stage.plan[1], {"image": images}, stage.generator)["loss"]
    net, mask = stage.net.module, stage.mask
    with torch.no_grad():
        generated = stage.generator(images)
        image = (generated - images).square().mean()
        difference = net.features(images) - net.features(generated)
    benign, backdoor = ((difference * part).square().mean() for part in (mask, 1 - mask))
    assert image > 1e-4
    expected = 10 * (image / 1e-4 - 1) + 0.5 * benign - torch.log(backdoor + 1e-6)
    assert loss.item() == pytest.approx(float(expected), rel=1e-4)
