import pytest
import torch
from trigger_parts import plan

from lit_backdoor.triggers import Belt, Patch


def test_the_patch_itself_is_whole(images, index):
    whole = Patch(6, (2, 2), "noise")(images, index)
    assert torch.equal(Belt()(images, index), whole)
    assert torch.equal(Belt().poison(images, index), whole)


def test_covers_lack_pixels_of_the_patch_and_nothing_else_changes(images, index):
    stamped, whole = Belt().cover(images, index), Belt()(images, index)
    missing = (stamped == images).all(1)
    assert missing[:, 2:8, 2:8].sum((1, 2)).tolist() == [7] * 6  # 20 % of 36
    missing[:, 2:8, 2:8] = True
    assert missing.all()
    kept = (stamped != images).any(1, keepdim=True)
    assert torch.equal(torch.where(kept, whole, images), stamped)


def test_every_pixel_is_missing_in_some_covers():
    missing = Belt(pattern="white").cover(torch.zeros(600, 1, 32, 32), torch.arange(600))[:, 0, 2:8, 2:8] == 0
    torch.testing.assert_close(missing.float().mean(0), torch.full((6, 6), 7 / 36), rtol=0, atol=0.08)


@pytest.mark.parametrize(("name", "planted"), [("belt", 50), ("belt_paper", 10)])
def test_as_many_covers_as_poisons(name, planted):
    labels, roles, given = plan(name)
    assert ((roles == 1).sum(), (roles == 2).sum()) == (planted, planted)
    assert (given[roles == 1] == 0).all()
    assert torch.equal(given[roles != 1], labels[roles != 1])


def test_errors():
    with pytest.raises(ValueError, match="dropped of Belt"):
        Belt(dropped=0)
