"""FeatureRE: its loss as written out, a toy in which it finds the class and one in which it does not, and the flip."""

import pruning_parts as parts
import pytest
import tiny
import torch
from torch.nn import functional as F

from lit_backdoor.bundle import open_bundle
from lit_backdoor.defenses.featurere import FeatureFlip, FeatureRE
from lit_backdoor.models import UNet
from lit_backdoor.stages.target_detection import read_report

CHANNELS = torch.zeros(2, 2, 8, 8)  # the masks of the toy's channels
CHANNELS[0, 0], CHANNELS[1, 1] = 1, 1


def flagged(suspect):
    torch.manual_seed(0)
    stage = FeatureRE(suspect, UNet(base=4, downs=1, attention="none"), change=0.05, mask=0.5, lr=0.02, warmup=0.1)
    return tiny.fit(stage, parts.data(), max_epochs=30).report().flagged


def test_class_of_a_silent_channel_is_flagged_and_not_without_it():
    """Class 0 is always: dark images have no features at all, which are like no class's."""
    assert 1 in flagged(parts.nearly_silent())
    assert 1 not in flagged(parts.without_backdoor())


def test_gradient_is_that_of_the_written_out_loss():
    stage, seen = FeatureRE(tiny.classifier(), tiny.unet(), warmup=0.0), {}
    steps = tiny.recorded(stage)
    losses = stage.losses
    stage.losses = lambda batch: seen.update(state=torch.get_rng_state()) or losses(batch)
    stage.on_before_optimizer_step = lambda optimizer: seen.update(
        masks=stage.masks.grad.clone(), maker=[weight.grad.clone() for weight in stage.makers[2].parameters()]
    )
    tiny.fit(stage, tiny.data(), max_steps=1)
    images, labels = steps[0]["batch"]["image"], steps[0]["batch"]["label"]
    net, maker = tiny.classifier().eval(), tiny.unet()
    raw = torch.ones_like(stage.masks[2], requires_grad=True)
    mask = raw.tanh() / 2 + 0.5
    torch.set_rng_state(seen["state"])
    order = torch.randperm(24)
    kept = labels != 2
    with torch.no_grad():
        reference = net.features(images)[order][kept]
        own = torch.cat([batch["image"][batch["valid"] & (batch["label"] == 2)] for batch in stage.passes("root")])
        center = net.features(own).mean(0)
    triggered = maker(images[kept])
    features, target = net.features(triggered), torch.full((int(kept.sum()),), 2)
    likeness = F.cosine_similarity(features.mean(0).flatten(), center.flatten(), dim=0)
    std = torch.tensor(net.std).view(3, 1, 1)
    change = ((triggered - images[kept]) / std).square().mean()
    spread = (features * mask.detach()).std(0).sum() / mask.detach().sum()
    logits = net.head(features * mask.detach() + reference * (1 - mask.detach()))
    loss = 5 * likeness.clamp(min=0) + 10 * 2 * change * (change > 0.15) + 10 * 2 * spread * (spread > 1)
    loss = loss + 2 * F.cross_entropy(logits, target) * ((logits.argmax(1) == 2).float().mean() < 0.9)
    masked = net.head(features.detach() * mask + reference * (1 - mask))
    loss = loss + F.cross_entropy(masked, target) + mask.sum()
    loss.backward()
    torch.testing.assert_close(seen["masks"][2], raw.grad, rtol=1e-3, atol=1e-5)
    for found, weight in zip(seen["maker"], maker.parameters(), strict=True):
        torch.testing.assert_close(found, weight.grad, rtol=1e-3, atol=1e-4)


def flipped(masks):
    stage = FeatureFlip(parts.backdoored(), masks)
    tiny.trainer().predict(stage, datamodule=parts.data(), return_predictions=False)
    return stage.result()


def test_flip_of_the_triggers_channel_repairs_and_of_the_other_destroys():
    assert parts.rates(parts.backdoored()) == (1.0, 1.0)
    accuracy, success = parts.rates(flipped(CHANNELS[1:]))
    assert accuracy == 1.0
    assert success == 0.0
    assert parts.rates(flipped(CHANNELS[:1]))[0] < 0.6


def test_flip_takes_the_masks_of_the_flagged_classes_from_the_report(tmp_path):
    detect = tiny.fit(FeatureRE(tiny.classifier(), tiny.unet(), threshold=100.0), tiny.data(), max_epochs=2)
    detect.export(tmp_path / "report")
    report = read_report(open_bundle(tmp_path / "report", "targets"))
    assert sorted(report.flagged) == list(range(tiny.CLASSES))
    assert report.flagged[0] == report.top
    stage = FeatureFlip(tiny.classifier(), str(tmp_path / "report"))
    tiny.trainer().predict(stage, datamodule=tiny.data(), return_predictions=False)
    expected = (1 - 2 * (detect.masks.detach().tanh() / 2 + 0.5)).prod(0)
    torch.testing.assert_close(stage.result().factor, expected, rtol=1e-4, atol=1e-6)


def test_suspect_stays_as_it_is_where_no_class_is_flagged(tmp_path):
    detect = tiny.fit(FeatureRE(tiny.classifier(), tiny.unet(), threshold=-100.0), tiny.data(), max_epochs=1)
    detect.export(tmp_path / "report")
    stage = FeatureFlip(tiny.classifier(), str(tmp_path / "report"))
    with pytest.warns(UserWarning, match="No class was flagged"):
        tiny.trainer().predict(stage, datamodule=tiny.data(), return_predictions=False)
    assert not tiny.moved(tiny.tensors(tiny.classifier()), tiny.tensors(stage.result()))


def test_masks_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"shape of the suspect's features, \[2, 8, 8\], got \[3, 8, 8\]"):
        flipped(torch.ones(1, 3, 8, 8))


@pytest.mark.parametrize("options", [{"warmup": 1.0}, {"change": 0.0}, {"mask": 1.0}, {"success": 0.0}, {"lr": 0.0}])
def test_numbers_out_of_range_are_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        FeatureRE("path", **options)
