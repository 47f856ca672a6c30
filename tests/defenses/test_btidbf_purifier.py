"""Nets that know where they are."""

import pytest
import torch
from btidbf_parts import data, suspect, trainer, unet

from lit_backdoor.bundle import open_bundle, save_bundle
from lit_backdoor.defenses.btidbf import (
    Decoupling,
    Inversion,
    Purification,
    TriggerInversion,
)
from lit_backdoor.functional.decoupling import pieces
from lit_backdoor.models import PatternedUNet, PlacedUNet, Purified
from lit_backdoor.stages import BundleWriter

ONE = Decoupling(epochs=1)


def run(stage, **options):
    trainer(stage.epochs, **options).fit(stage, datamodule=data())
    return stage


def test_pattern_stands_at_one_place_and_is_learned(tmp_path):
    torch.manual_seed(0)
    net = PatternedUNet(16, base=4, downs=2)
    with torch.no_grad():
        net.pattern.zero_()
        net.pattern[:, 2, 3] = 1.0
        net.last.weight.zero_()
    images = torch.rand(2, 3, 16, 16)
    change = (net(images) - images).abs().sum((0, 1)) > 1e-6
    assert change.nonzero().tolist() == [[2, 3]]
    stage = TriggerInversion(suspect(), ONE, Inversion(epochs=1))
    stage.configure_model()
    start = stage.generator.pattern.detach().clone()
    run(stage, callbacks=[BundleWriter(str(tmp_path))])
    assert not torch.equal(stage.generator.pattern, start)
    trigger = open_bundle(tmp_path, "trigger").build()
    assert torch.equal(trigger(images), stage.generator(images))


def test_placed_net_does_other_things_at_other_places(tmp_path):
    torch.manual_seed(0)
    net = PlacedUNet(16, base=4, downs=2)
    images = torch.rand(2, 3, 16, 16)
    with torch.no_grad():
        net.last.weight.mul_(100)
        before = net(images)
        net.encoder[0][1].map[:, 4, 11] += 5
        change = (net(images) - before).abs().mean((0, 1))
    assert change[2:7, 9:14].mean() > 1.5 * change.mean()
    save_bundle(tmp_path, kind="suspect", module=Purified(net, suspect()))
    torch.testing.assert_close(open_bundle(tmp_path).build().purifier(images), net(images))


def test_default_purifier_is_placed_and_learns_its_map():
    stage = Purification(suspect(), ONE, Inversion(epochs=1), unet(), rounds=1, purify_epochs=1)
    stage.configure_model()
    start = stage.purifier.encoder[0][1].map.detach().clone()
    run(stage)
    assert not torch.equal(stage.purifier.encoder[0][1].map, start)


def test_lesson_of_pieces_is_equation_4_on_pieces():
    stage = Purification(suspect(), ONE, Inversion(epochs=1), unet(), unet(), rounds=1, purify_epochs=1)
    stage.configure_model()
    batch = {"image": torch.rand(4, 3, 16, 16), "label": torch.arange(4)}
    torch.manual_seed(3)
    loss = stage.purify_step(batch)
    torch.manual_seed(3)
    with torch.no_grad():
        features = stage.subject.features(batch["image"])
        parts = pieces(batch["image"], stage.generator(batch["image"]))
        expected = sum(stage.restoration(batch, inputs, features) for inputs in (parts, batch["image"]))
    assert loss.item() == pytest.approx(float(expected), rel=1e-5)
