import tiny
import torch

from lit_backdoor.data import BackdoorDataModule, Split, TensorSource
from lit_backdoor.triggers import Attack, PairedTrigger, Role


class Half(PairedTrigger):
    """Replaces the right half by the partner's."""

    def forward(self, images, index, partners=None):
        half = images.shape[3] // 2
        return torch.cat((images[..., :half], partners[..., half:]), 3)


def numbered(count=40):
    images = torch.arange(count, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 4, 4).contiguous()
    return images, torch.arange(count) % 4


def data(**options):
    attack = Attack(Half(), target=0, rate=0.25, cover_rate=0.25)
    return BackdoorDataModule(
        TensorSource(numbered(), numbered(12)), Split(root_pool=8), attack, None, batch_size=8, **options
    )


def pairs(datamodule, view, **options):
    """Own number, partner's number and role of each stamped row, read from the pixels."""
    found = {}
    for batch in datamodule.loader(view, **options):
        done = datamodule.images(batch)
        left, right = ((done["image"][:, 0, 0, column] * 255).round().int().tolist() for column in (0, 3))
        for index, own, other, role in zip(done["index"].tolist(), left, right, done["role"].tolist(), strict=True):
            assert own == index
            found[index] = (other, role)
    return found


def test_every_stamped_row_meets_another_row_of_its_part():
    datamodule = data()
    trained = pairs(datamodule, "train")
    for own, (other, role) in trained.items():
        assert (other == own) == (role == Role.CLEAN)
        assert other in trained
    assert all(other != own for own, (other, _) in pairs(datamodule, "triggered").items())


def test_partners_depend_on_the_seed_only():
    one = pairs(data(), "train")
    assert pairs(data(), "questioned", batch_size=5) == one
    assert pairs(data(num_workers=1), "train") == one
    other = data(seed=1)
    other.attack.seed = 0
    assert pairs(other, "questioned") != one


def test_lent_trigger_gets_partners(tmp_path):
    datamodule = tiny.data(tiny.attack())
    plain = datamodule.loader("triggered")
    assert "partner" not in next(iter(plain))
    datamodule.lend(Half())
    assert next(iter(datamodule.loader("triggered")))["partner"].shape == (16, 3, 16, 16)
    datamodule.lend(None)
    assert "partner" not in next(iter(datamodule.loader("triggered")))


def test_partners_come_at_the_stored_size():
    datamodule = data(stored_size=8)
    batch = datamodule.images(next(iter(datamodule.loader("triggered"))))
    assert batch["image"].shape[2:] == (8, 8)
