"""Februus: its holes, its threshold, a trigger that it removes and one that it does not."""

import pruning_parts as parts
import pytest
import tiny
import torch
from repair_parts import changed_by_the_attack
from torch import nn

from lit_backdoor.bundle import open_bundle
from lit_backdoor.defenses.februus import Februus, Surgery, purification
from lit_backdoor.defenses.februus.purification import drawn_holes
from lit_backdoor.models import UNet, wrap_classifier


def small(start="identity"):
    return UNet(base=4, downs=1, attention="none", start=start)


class Spot(nn.Module):
    """Brightness says the class; what is far redder than blue leads to class 1, from wherever it is."""

    def __init__(self):
        super().__init__()
        self.maps = nn.Identity()

    def forward(self, images):
        bright, red = images.mean(1) - 0.5, (images[:, 0] - images[:, 2] - 0.4).relu()
        maps = self.maps(torch.stack((bright.relu(), (-bright).relu(), 100 * red), 1))
        light, dark, spot = maps.mean((2, 3)).unbind(1)
        return torch.stack((dark, light + spot), 1) * 8


def suspect():
    return wrap_classifier(Spot(), split="maps", num_classes=2, input_size=8, mean=(0.0,) * 3, std=(1.0,) * 3)


def reddened(images, size):
    found = images.clone()
    found[:, :, :size, :size] = torch.tensor([1.0, 0.0, 0.0]).view(3, 1, 1)
    return found


def test_spot_is_painted_over_and_a_color_everywhere_is_not():
    stage = tiny.fit(Februus(suspect(), small(), tolerance=0.1), parts.data(), max_epochs=3)
    assert stage.numbers()["threshold"] < 1
    cleaned = stage.result()
    assert parts.rates(suspect(), lambda images: reddened(images, 2)) == (1.0, 1.0)
    accuracy, success = parts.rates(cleaned, lambda images: reddened(images, 2))
    assert accuracy > 0.8
    assert success < 0.5
    everywhere = parts.rates(
        cleaned, lambda images: (images + torch.tensor([0.3, 0.0, -0.3]).view(3, 1, 1)).clamp(0, 1)
    )
    assert everywhere[1] > 0.8


def test_only_holes_are_painted_and_only_where_the_heat_is_above_the_threshold():
    surgery, images = Surgery(small("random"), tiny.classifier()).eval(), torch.rand(4, 3, 16, 16)
    assert torch.equal(surgery(images), surgery.classifier(images))  # nothing is removed at first
    surgery.threshold.fill_(0.5)
    holes = surgery.holes(images).expand(-1, 3, -1, -1)
    assert 0 < holes.float().mean() < 1
    found = surgery.purified(images)
    assert torch.equal(found[~holes], images[~holes])
    gray = torch.where(holes, 0.5, images)
    torch.testing.assert_close(found[holes], surgery.purifier(gray)[holes])
    torch.testing.assert_close(surgery(images), surgery.classifier(found))


def test_threshold_that_is_given_is_not_chosen():
    stage = Februus(suspect(), small(), threshold=0.7)
    stage.accuracy = lambda threshold: pytest.fail("no accuracy is needed")
    tiny.fit(stage, parts.data(), max_epochs=1)
    assert float(stage.result().threshold) == pytest.approx(0.7)
    with pytest.raises(ValueError, match="Expected threshold"):
        Februus(suspect(), small(), threshold=0.0)


def test_threshold_is_the_lowest_down_to_which_the_root_accuracy_holds():
    stage = tiny.fit(Februus(suspect(), small()), parts.data(), max_epochs=1)
    seen, stage._stale = {}, True
    rates = {torch.inf: 1.0, 0.95: 0.99, 0.9: 0.96, 0.85: 0.94, 0.8: 1.0}
    stage.accuracy = lambda threshold: seen.setdefault(threshold, rates[threshold])
    stage.result()
    assert stage.numbers()["threshold"] == pytest.approx(0.9)
    assert list(seen) == [torch.inf, 0.95, 0.9, 0.85]
    stage.accuracy, stage._stale = lambda threshold: float(threshold > 1), True
    stage.result()
    assert stage.numbers()["threshold"] is None


def test_holes_are_rectangles_of_at_most_a_share():
    holes = drawn_holes(50, 12, 20, 0.5)
    assert holes.shape == (50, 1, 12, 20)
    for hole in holes[:, 0]:
        rows, columns = hole.any(1).nonzero().flatten(), hole.any(0).nonzero().flatten()
        assert hole.sum() == len(rows) * len(columns) > 0
        assert (rows[-1] - rows[0] + 1, columns[-1] - columns[0] + 1) == (len(rows), len(columns))
        assert len(rows) <= 7
        assert len(columns) <= 11
    assert len(holes.flatten(1).unique(dim=0)) > 40


def test_loss_is_the_error_in_the_holes(monkeypatch):
    holes = torch.zeros(24, 1, 16, 16, dtype=torch.bool)
    holes[:, :, 3:7, 2:12] = True
    monkeypatch.setattr(purification, "drawn_holes", lambda *_: holes)
    stage = Februus(tiny.classifier(), tiny.unet())
    steps = tiny.recorded(stage)
    tiny.fit(stage, tiny.data(), max_steps=1)
    images, gray = (steps[0]["batch"]["image"].clone() for _ in range(2))
    gray[:, :, 3:7, 2:12] = 0.5
    error = (tiny.unet()(gray) - images)[:, :, 3:7, 2:12].abs().mean()
    assert float(steps[0]["loss"]) == pytest.approx(float(error.detach()), rel=1e-4)


def test_bundle_gives_the_same_logits(tmp_path):
    stage = tiny.fit(Februus(tiny.classifier(), small(), tolerance=0.9), tiny.data(), max_epochs=1)
    stage.export(tmp_path / "bundle")
    images = torch.rand(5, 3, 16, 16)
    again = open_bundle(tmp_path / "bundle", "suspect").build().eval()
    assert float(again.threshold) < 1
    torch.testing.assert_close(again(images), stage.result().eval()(images))


def test_nothing_of_the_attack_reaches_it():
    torch.manual_seed(0)
    assert not changed_by_the_attack(lambda: Februus(tiny.classifier(), tiny.unet()))


@pytest.mark.parametrize("options", [{"largest": 1.0}, {"tolerance": 0.0}])
def test_numbers_out_of_range_are_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        Februus("path", **options)
