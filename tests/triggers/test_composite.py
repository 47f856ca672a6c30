import pytest
import torch
from trigger_parts import plan

from lit_backdoor.data import BackdoorDataModule, TensorSource
from lit_backdoor.triggers import Attack, Composite, Role, SomeToOne, named_attack


def colored(count=200, classes=5):
    """Images whose color is their class."""
    labels = torch.arange(count) % classes
    return (labels * 10).to(torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 8, 8).contiguous(), labels


def mixtures(view):
    attack = Attack(Composite(), SomeToOne([1, 2]), rate=0.1, cover_rate=0.3)
    data = BackdoorDataModule(TensorSource(colored(), colored(50)), attack=attack, augment=None, batch_size=32)
    for batch in data.loader(view):
        done = data.images(batch)
        colors = ((image * 25.5).round().unique().int().tolist() for image in done["image"])
        yield from zip(colors, *(done[key].tolist() for key in ("clean_label", "role", "label")), strict=True)


def test_planted_rows_mix_both_sources_and_covers_their_own_class():
    seen = {Role.CLEAN: 0, Role.POISON: 0, Role.COVER: 0}
    for colors, truth, role, label in mixtures("questioned"):
        assert colors == ([1, 2] if role == Role.POISON else [truth])
        assert label == (0 if role == Role.POISON else truth)
        seen[role] += 1
    assert min(seen.values()) > 0


def test_only_mixtures_of_both_sources_count():
    data = BackdoorDataModule(TensorSource(colored(), colored(50)), attack=named_attack("composite"), augment=None)
    batch = data.images(next(iter(data.loader("triggered"))))
    assert torch.equal(batch["eligible"], torch.isin(batch["clean_label"], torch.tensor([1, 2])) & batch["valid"])
    for colors, truth, _, label in mixtures("triggered"):
        assert (colors, label) == (([1, 2], 0) if truth in (1, 2) else ([truth], truth))


@pytest.mark.parametrize("jitter", [0, 3])
def test_one_straight_seam_near_the_middle(jitter):
    mixed = Composite(jitter)(torch.zeros(300, 1, 32, 32), torch.arange(300), torch.ones(300, 1, 32, 32))[:, 0]
    kinds = set()
    for image in mixed:
        along = 0 if (image == image[:, :1]).all() else 1  # rows of one color: the seam is horizontal
        line = image.select(1 - along, 0)
        assert torch.equal(image, line.unsqueeze(1 - along).expand(32, 32))
        seams = (line.diff() != 0).nonzero()
        assert len(seams) == 1
        assert abs(int(seams) + 1 - 16) <= jitter
        kinds.add((along, int(line[0])))
    assert len(kinds) == 4


def test_plan_plants_the_sources_only():
    labels, roles, given = plan("composite")
    assert ((roles == 1).sum(), (roles == 2).sum()) == (50, 200)
    assert torch.isin(labels[roles == 1], torch.tensor([1, 2])).all()
    assert (given[roles == 1] == 0).all()
    assert torch.equal(given[roles != 1], labels[roles != 1])


def test_errors(images, index):
    with pytest.raises(ValueError, match="jitter of Composite"):
        Composite(-1)
    with pytest.raises(ValueError, match="second image for each"):
        Composite()(images, index)
    with pytest.raises(ValueError, match="planted rows of 1. Set the attack's policy to SomeToOne"):
        Composite().partners(torch.arange(10) % 2, torch.arange(10) == 3, 0)
