"""NIST's interfaces around a tiny net."""

import json

import pytest
import tiny
import torch
from purify_parts import ARCH, Foreign, trained
from torchvision.io import write_png

from lit_backdoor.models.base import Classifier
from lit_backdoor.trojai import Detector, Mitigation


class Samples(torch.utils.data.Dataset):
    """As NIST's sample data: image in [0, 1], label or -1, file name."""

    def __init__(self, labeled):
        self.rows, self.labeled = tiny.source().train(), labeled

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, number):
        image = self.rows.images(torch.tensor([number]))[0].float() / 255
        return image, int(self.rows.labels[number]) if self.labeled else -1, f"{number}.png"


@pytest.fixture(scope="module")
def net():
    """A net that takes images in [0, 1]: the first layer does what the normalization would."""
    net = trained(Foreign())
    first = net.trunk[0]
    with torch.no_grad():
        first.bias.sub_(first.weight.sum((1, 2, 3)))
        first.weight.mul_(2)
    return net


@pytest.mark.parametrize("labeled", [True, False])
def test_net_is_cleaned_and_the_given_one_stays(net, labeled, tmp_path):
    before = tiny.tensors(net)
    options = {"defense": "fine_tune", "settings": ["stages.control.steps=1"], "arch": ARCH}
    mitigation = Mitigation("cpu", 8, 0, scratch=tmp_path, **options)
    found = mitigation.mitigate_model(net, Samples(labeled))
    assert isinstance(found.model, Foreign)
    assert tiny.moved(before, tiny.tensors(found.model))
    assert not tiny.moved(before, tiny.tensors(net))
    images = torch.rand(2, 3, tiny.SIZE, tiny.SIZE)
    seen, info = found.preprocess_transform(images)
    assert found.postprocess_transform(found.model(seen), info).shape == (2, tiny.CLASSES)
    assert not list(tmp_path.iterdir())


def test_what_is_added_is_part_of_the_net(net):
    found = Mitigation(defense="shrink_pad", arch=ARCH).mitigate_model(net, Samples(True))
    assert isinstance(found.model, Classifier)


@pytest.mark.parametrize(("audit", "expected"), [
    ({"verdict": "clean", "probability": 0.125}, 0.125), ({"verdict": "backdoored", "probability": None}, 0.75),
])  # fmt: skip
def test_detector_writes_the_probability(net, tmp_path, monkeypatch, audit, expected):
    seen = {}

    def run_audit(model, data, out, **options):
        seen.update(options, data=data, keys=torch.load(model, weights_only=True).keys())
        return audit

    monkeypatch.setattr("lit_backdoor.audit.run_audit", run_audit)
    examples = tmp_path / "examples"
    examples.mkdir()
    for number in range(3):
        write_png(torch.zeros(3, 8, 8, dtype=torch.uint8), str(examples / f"{number}.png"))
        label = number if number else {"clean_label": 0}
        (examples / f"{number}.json").write_text(json.dumps(label))
    torch.save(net, tmp_path / "model.pt")
    detector = Detector(load=lambda path: torch.load(path, weights_only=False), arch=ARCH, budget=5.0)
    found = detector.infer(tmp_path / "model.pt", tmp_path / "result", tmp_path / "scratch", examples)
    assert found == float((tmp_path / "result").read_text()) == expected
    assert (seen["budget"], seen["arch"], seen["keys"]) == (5.0, ARCH, net.state_dict().keys())
    assert seen["data"].suffix == ".parquet"


def test_pickled_net_is_refused_without_a_reader(net, tmp_path):
    torch.save(net, tmp_path / "model.pt")
    (tmp_path / "examples").mkdir()
    with pytest.raises(ValueError, match="was refused"):
        Detector().infer(tmp_path / "model.pt", tmp_path / "result", tmp_path, tmp_path / "examples")
    assert not (tmp_path / "result").exists()
