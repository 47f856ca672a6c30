import pytest
import torch

from lit_backdoor.bundle import open_bundle, save_bundle
from lit_backdoor.triggers import AddedPattern, MaskedPattern, OneOf, Patch, SemanticTrigger

DRAW = torch.Generator().manual_seed(0)
IMAGES = torch.rand(4, 3, 6, 8, generator=DRAW)


def masked():
    return MaskedPattern.holding(torch.rand(1, 6, 8, generator=DRAW), torch.rand(3, 6, 8, generator=DRAW))


def added():
    return AddedPattern.holding(torch.rand(3, 6, 8, generator=DRAW) * 2 - 1)


def test_mask_says_how_much_of_the_pattern_is_seen():
    trigger = masked()
    stamped = trigger(IMAGES, torch.arange(4))
    torch.testing.assert_close(stamped, IMAGES + trigger.mask * (trigger.pattern - IMAGES))


def test_change_is_added_without_what_no_image_can_show():
    change = torch.tensor([0.5, -0.5, 0.9 / 255, 1 / 255]).view(1, 2, 2)
    trigger = AddedPattern.holding(change)
    assert trigger(torch.full((1, 1, 2, 2), 0.75)).flatten().tolist() == [1.0, 0.25, 0.75, 0.75 + torch.tensor(1 / 255)]


@pytest.mark.parametrize("make", [lambda: MaskedPattern(3, 6, 8), lambda: AddedPattern(3, 6, 8)])
def test_empty_trigger_changes_nothing(make):
    assert torch.equal(make()(IMAGES), IMAGES)


@pytest.mark.parametrize("make", [masked, added, lambda: OneOf([masked(), added()])])
def test_bundle_rebuilds_the_trigger(make, tmp_path):
    trigger = make()
    save_bundle(tmp_path / "a", kind="trigger", module=trigger)
    again = open_bundle(tmp_path / "a").build()
    assert torch.equal(again(IMAGES, torch.arange(4)), trigger(IMAGES, torch.arange(4)))
    assert not torch.equal(again(IMAGES), IMAGES)


@pytest.mark.parametrize("make", [masked, added, lambda: OneOf([masked(), added()])])
def test_other_precisions_are_kept(make):
    assert make()(IMAGES.bfloat16()).dtype == torch.bfloat16


def test_one_of_several_triggers_is_chosen_by_index_alone():
    one, two = masked(), added()
    both, stamped = OneOf([one, two]), (one(IMAGES), two(IMAGES))

    def chosen(index):
        made = both(IMAGES, index)
        return [next(k for k in (0, 1) if torch.equal(made[i], stamped[k][i])) for i in range(len(IMAGES))]

    index = torch.tensor([7, 7, 2, 5])
    assert chosen(index) == chosen(index)
    assert chosen(index)[0] == chosen(index)[1]
    assert chosen(index.flip(0))[::-1] == chosen(index)
    assert torch.equal(both(IMAGES), both(IMAGES, torch.arange(4)))


@pytest.mark.parametrize(("count", "classes"), [(2, 4), (3, 6), (2, 10)])
def test_every_class_sees_every_trigger_about_as_often(count, classes):
    """Rows come sorted by class in turn, which a choice by turns would not mix."""
    images = torch.zeros(600, 1, 1, 1)
    values = [AddedPattern.holding(torch.full((1, 1, 1), 0.1 * (k + 1))) for k in range(count)]
    choice = (OneOf(values)(images, torch.arange(600)).flatten() * 10).round().long() - 1
    shares = torch.stack([choice[label::classes].bincount(minlength=count) for label in range(classes)]) * classes / 600
    assert (shares - 1 / count).abs().max() < 0.15


def test_triggers_that_need_the_row_get_it():
    patch = Patch(size=3)
    both = OneOf([patch, patch])
    assert torch.equal(both(IMAGES, torch.arange(4)), patch(IMAGES, torch.arange(4)))
    with pytest.raises(ValueError, match="a trigger that can be stamped"):
        OneOf([patch, SemanticTrigger("x")])(IMAGES)


def test_no_trigger_at_all_is_refused():
    with pytest.raises(ValueError, match="at least one trigger"):
        OneOf([])


@pytest.mark.parametrize("make", [masked, added])
def test_images_of_another_size_are_refused(make):
    with pytest.raises(ValueError, match=r"inverted at, \[3, 6, 8\], got \[3, 8, 8\]"):
        make()(torch.rand(2, 3, 8, 8))
