import pytest
import torch
from trigger_parts import plan

from lit_backdoor.triggers import AdapPatch, Patch

PLACES, ALPHAS = ("top_left", "top_right", "bottom_left", "bottom_right"), [0.5, 0.2, 0.5, 0.3]
CORNERS = [(slice(4), slice(4)), (slice(4), slice(28, 32)), (slice(28, 32), slice(4)), (slice(28, 32), slice(28, 32))]


def made(together=(0, 2)):
    return AdapPatch([Patch(4, place) for place in PLACES], ALPHAS, list(together))


def test_each_planted_row_gets_one_faint_patch():
    images = torch.full((400, 3, 32, 32), 0.4)
    stamped = made().poison(images, torch.arange(400))
    drawn = [0] * 4
    for image in stamped:
        changed = [number for number, corner in enumerate(CORNERS) if (image[(..., *corner)] != 0.4).any()]
        assert len(changed) == 1
        expected = torch.full((3, 32, 32), 0.4)
        expected[(..., *CORNERS[changed[0]])] = 0.4 + ALPHAS[changed[0]] * 0.6
        torch.testing.assert_close(image, expected)
        drawn[changed[0]] += 1
    assert min(drawn) > 70


def test_test_time_combines_patches_in_full(images, index):
    expected = images.clone()
    expected[(..., *CORNERS[0])] = expected[(..., *CORNERS[2])] = 1
    assert torch.equal(made()(images, index), expected)


@pytest.mark.parametrize(("name", "poisons"), [("adap_patch", 20), ("adap_patch_paper", 3)])
def test_twice_as_many_covers_as_poisons(name, poisons):
    labels, roles, given = plan(name)
    assert ((roles == 1).sum(), (roles == 2).sum()) == (poisons, 2 * poisons)
    assert (given[roles == 1] == 0).all()
    assert torch.equal(given[roles != 1], labels[roles != 1])


@pytest.mark.parametrize(
    ("alphas", "together", "message"),
    [([0.5], [0], "2 patches and 1 alphas"), ([0.5, 0.5], [2], "from 0 to 1"), ([0.5, 1.5], [0], "alpha of AdapPatch")],
)
def test_errors(alphas, together, message):
    with pytest.raises(ValueError, match=message):
        AdapPatch([Patch(), Patch(place="center")], alphas, together)
