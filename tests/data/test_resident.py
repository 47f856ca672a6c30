import pytest
import torch

from lit_backdoor.data import BackdoorDataModule, CropFlip, Split, resident
from lit_backdoor.triggers import Attack, PairedTrigger


def batches(data, view, training):
    return [data.images(batch, training) for batch in data.loader(view)], next(iter(data.loader(view)))


class Half(PairedTrigger):
    def forward(self, images, index, partners=None):
        return (images + partners) / 2


@pytest.fixture
def accelerator(monkeypatch):
    monkeypatch.setattr(resident, "is_accelerator", lambda device: True)


@pytest.mark.parametrize("paired", [False, True])
@pytest.mark.parametrize("view", ["train", "root", "clean", "triggered", "questioned"])
def test_batches_without_images_are_finished_as_those_with_them(view, paired, source, attack, accelerator):
    def made(budget):
        plan = Attack(Half(), target=1, rate=0.1) if paired else attack
        return BackdoorDataModule(source, Split(root_pool=20), plan, CropFlip(1), 16, 64, resident_bytes=budget)

    (sent, first), (looked_up, bare) = (batches(made(budget), view, view == "train") for budget in (0, 2**20))
    assert "image" in first
    assert "image" not in bare
    for one, two in zip(sent, looked_up, strict=True):
        assert one.keys() == two.keys()
        assert torch.equal(one["image"], two["image"])
        assert torch.equal(one["label"], two["label"])
