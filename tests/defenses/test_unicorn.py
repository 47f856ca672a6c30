"""Unicorn: its loss as written out, a toy whose class it finds and cleans and one with none, and the finalists."""

import pruning_parts as parts
import pytest
import tiny
import torch
from kornia.metrics import ssim
from torch.nn import functional as F

from lit_backdoor.bundle import open_bundle
from lit_backdoor.defenses.unicorn import Unicorn
from lit_backdoor.functional.feature_inversion import Measures
from lit_backdoor.models import UNet
from lit_backdoor.stages import StampedUnlearning


def small(start="identity"):
    return UNet(base=4, downs=1, attention="none", start=start)


def searched(suspect, **options):
    torch.manual_seed(0)
    given = {"scan": 1.0, "lr": 0.01, **options}
    return tiny.fit(Unicorn(suspect, small(), **given), parts.data(), max_epochs=30)


@pytest.fixture(scope="module")
def found():
    return searched(parts.nearly_silent())


def test_class_of_a_silent_channel_is_flagged_and_none_without_it(found):
    assert found.report().flagged == (1,)
    assert parts.rates(parts.nearly_silent(), lambda images: found.trigger(1)(images)) == (1.0, 1.0)
    assert searched(parts.without_backdoor()).report().flagged == ()


def test_unlearning_of_what_was_exported_removes_the_planted_trigger(found, tmp_path):
    found.export(tmp_path / "report")
    images = torch.rand(3, 3, 8, 8)
    trigger = open_bundle(tmp_path / "report", "targets").build()
    torch.testing.assert_close(trigger(images), found.trigger(1)(images))
    assert parts.rates(parts.nearly_silent()) == (1.0, 1.0)
    stage = StampedUnlearning(
        parts.nearly_silent(), str(tmp_path / "report"), optimizer=lambda weights: torch.optim.Adam(weights, 0.1)
    )
    tiny.fit(stage, parts.data(), max_epochs=30)
    accuracy, success = parts.rates(stage.result())
    assert accuracy == 1.0
    assert success <= 0.25


def test_value_is_the_excess_of_broken_bounds_less_the_success():
    stage = tiny.fit(Unicorn(tiny.classifier(), small()), tiny.data(), max_epochs=1)
    with torch.no_grad():
        for maker in stage.makers:
            maker.raw_mask.fill_(-0.6931472)  # a mask of .2
    columns = (torch.tensor([value] * tiny.CLASSES) for value in (0.95, 0.7, 0.3, 0.5, 0.1))
    expected = -0.95 + (0.3 - 0.15) / 0.15 + (0.2 - 0.15) / 0.15
    torch.testing.assert_close(stage.value(Measures(*columns)), torch.full((tiny.CLASSES,), expected))


def test_gradient_is_that_of_the_written_out_loss():
    stage, seen = Unicorn(tiny.classifier(), tiny.unet(), change=0.01, stamp=0.05), {}
    steps = tiny.recorded(stage)
    losses = stage.losses
    stage.losses = lambda batch: seen.update(state=torch.get_rng_state()) or losses(batch)
    stage.on_before_optimizer_step = lambda optimizer: seen.update(
        masks=stage.masks.grad.clone(), maker=[weight.grad.clone() for weight in stage.makers[2].parameters()]
    )
    tiny.fit(stage, tiny.data(), max_steps=1)
    images, labels = steps[0]["batch"]["image"], steps[0]["batch"]["label"]
    net, encoder, decoder = tiny.classifier().eval(), tiny.unet(), tiny.unet()
    raw = torch.ones_like(stage.masks[2], requires_grad=True)
    raw_mask, raw_pattern = (torch.full((3, 16, 16), start, requires_grad=True) for start in (-1.0, 0.0))
    mask, stamp, pattern = (each.tanh() / 2 + 0.5 for each in (raw, raw_mask, raw_pattern))
    torch.set_rng_state(seen["state"])
    order, kept = torch.randperm(24), labels != 2
    with torch.no_grad():
        reference = net.features(images)[order][kept]
        own = torch.cat([batch["image"][batch["valid"] & (batch["label"] == 2)] for batch in stage.passes("root")])
        center = net.features(own).mean(0)
    clean, target = images[kept], torch.full((int(kept.sum()),), 2)
    triggered = decoder(encoder(clean) * (1 - stamp) + pattern * stamp)
    features, fixed = net.features(triggered), mask.detach()
    likeness = F.cosine_similarity(features.mean(0).flatten(), center.flatten(), dim=0)
    change = 1 - ssim(clean, triggered, 11).mean()
    spread = (features * fixed).std(0).sum() / fixed.sum()
    logits = net.head(features * fixed + reference * (1 - fixed))
    loss = likeness.clamp(min=0) + 10 * 2 * change * (change > 0.01) + 10 * 2 * spread * (spread > 1)
    loss = loss + 2 * F.cross_entropy(logits, target) * ((logits.argmax(1) == 2).float().mean() < 0.9)
    masked = net.head(features.detach() * mask + reference * (1 - mask))
    loss = loss + F.cross_entropy(masked, target) + mask.sum()
    restored = ((decoder(encoder(clean)) - clean) / torch.tensor(net.std).view(3, 1, 1)).square().mean()
    loss = loss + 200 * restored + 10 * (stamp.mean() - 0.05) / 0.05
    loss.backward()
    assert float(change.detach()) > 0.01
    torch.testing.assert_close(seen["masks"][2], raw.grad, rtol=1e-3, atol=1e-5)
    own = [raw_mask, raw_pattern, *encoder.parameters(), *decoder.parameters()]
    assert len(seen["maker"]) == len(own)
    for gradient, weight in zip(seen["maker"], own, strict=True):
        torch.testing.assert_close(gradient, weight.grad, rtol=1e-3, atol=1e-4 * float(1 + weight.grad.abs().max()))


def test_after_the_scan_only_the_most_promising_classes_go_on():
    stage, best = Unicorn(tiny.classifier(), small(), scan=0.5, finalists=2), []
    stage.on_train_epoch_end = lambda: best.append((list(stage.tried), stage.best.clone()))
    tiny.fit(stage, tiny.data(), max_epochs=4)
    assert [tried for tried, _ in best[:2]] == [list(range(tiny.CLASSES))] * 2
    order = best[1][1].argsort(stable=True).tolist()
    assert all(set(tried) == set(order[:2]) for tried, _ in best[2:])
    assert torch.equal(best[3][1][order[2:]], best[1][1][order[2:]])


@pytest.mark.parametrize("options", [
    {"stamp": 0.0}, {"change": 0.0}, {"mask": 1.0}, {"scan": 0.0}, {"finalists": 0}, {"lr": 0.0},
])  # fmt: skip
def test_numbers_out_of_range_are_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        Unicorn("path", **options)
