import pytest
import torch
from torch.nn import functional as F

from lit_backdoor.data.augment import ByRole, CropFlip, NoAugment
from lit_backdoor.recipe import recipe
from lit_backdoor.triggers.base import Role


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def images(count=6, height=8, width=10):
    return torch.rand(count, 3, height, width, generator=generator(1))


ROLES = torch.tensor([0, 1, 2, 0, 1, 2], dtype=torch.int8)


@pytest.mark.parametrize("flip", [False, True])
def test_crop_flip_is_a_loop_of_slices(flip):
    x, padding = images(), 3
    got = CropFlip(padding, flip)(x, ROLES, generator())
    draws = generator()
    down, right = torch.randint(2 * padding + 1, (2, 6, 1), generator=draws).squeeze(2)
    mirrored = torch.rand(6, 1, generator=draws) < 0.5
    assert mirrored.any()
    for row in range(6):
        padded = F.pad(x[row], [padding] * 4)
        want = padded[:, down[row] : down[row] + 8, right[row] : right[row] + 10]
        assert got[row].equal(want.flip(-1) if flip and mirrored[row] else want)


def test_crop_flip_reaches_every_offset_and_both_sides():
    x = torch.zeros(2000, 1, 5, 5)
    x[:, :, 2, 2] = 1
    got = CropFlip(1, flip=True)(x, torch.zeros(2000), generator())
    places = got.flatten(1).argmax(1)
    assert set(places.tolist()) == {6, 7, 8, 11, 12, 13, 16, 17, 18}


def test_rows_differ_and_the_seed_decides():
    x = images()[:1].expand(64, -1, -1, -1)
    augment, roles = CropFlip(4), torch.zeros(64, dtype=torch.int8)
    one = augment(x, roles, generator())
    assert len(one.flatten(1).unique(dim=0)) > 10
    assert one.equal(augment(x, roles, generator()))
    assert not one.equal(augment(x, roles, generator(7)))


def test_nothing_to_do_changes_nothing():
    x = images()
    assert CropFlip(0, flip=False)(x, ROLES, generator()).equal(x)
    assert NoAugment()(x, ROLES, generator()) is x


def test_by_role_touches_only_its_rows():
    x = images()
    got = ByRole(clean=CropFlip(3))(x, ROLES, generator())
    same = [bool(got[row].equal(x[row])) for row in range(6)]
    assert same == [role != Role.CLEAN for role in ROLES.tolist()]
    assert got[0].equal(CropFlip(3)(x, ROLES, generator())[0])


def test_augmentations_can_be_written_down():
    assert recipe(ByRole(poison=CropFlip(2, flip=False)))["init_args"]["poison"]["init_args"] == {
        "padding": 2,
        "flip": False,
    }


@pytest.mark.parametrize("padding", [-1, 10**6])
def test_padding_that_is_negative_or_huge_is_refused(padding):
    with pytest.raises(ValueError, match=f"padding from 0 to 512 pixels, got {padding}"):
        CropFlip(padding)
