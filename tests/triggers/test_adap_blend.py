import numpy as np
import pytest
import torch
from trigger_parts import plan

from lit_backdoor.triggers import AdapBlend, Blend


def test_planted_rows_get_half_of_the_pieces(images, index):
    trigger = AdapBlend(0.15)
    whole = Blend(0.15)(images, index)
    for row, (image, stamped, blended) in enumerate(zip(images, trigger.poison(images, index), whole, strict=True)):
        shown = 0
        for top, left in np.ndindex(4, 4):
            piece = (..., slice(8 * top, 8 * top + 8), slice(8 * left, 8 * left + 8))
            blends = torch.equal(stamped[piece], blended[piece])
            assert blends or torch.equal(stamped[piece], image[piece]), f"row {row} mixes"
            shown += blends
        assert shown == 8


def test_pieces_differ_between_rows_and_all_are_used():
    images = torch.zeros(400, 1, 32, 32)
    shown = AdapBlend(0.5).poison(images, torch.arange(400))[:, 0, ::8, ::8] > 0
    assert len(shown.flatten(1).unique(dim=0)) > 300
    torch.testing.assert_close(shown.float().mean(0), torch.full((4, 4), 0.5), rtol=0, atol=0.12)


def test_test_time_is_the_whole_pattern_and_stronger(images, index):
    assert torch.equal(AdapBlend(test_alpha=0.3)(images, index), Blend(0.3)(images, index))


@pytest.mark.parametrize(("name", "planted"), [("adap_blend", 20), ("adap_blend_paper", 3)])
def test_as_many_covers_as_poisons(name, planted):
    labels, roles, given = plan(name)
    assert ((roles == 1).sum(), (roles == 2).sum()) == (planted, planted)
    assert (given[roles == 1] == 0).all()
    assert torch.equal(given[roles != 1], labels[roles != 1])


def test_covers_are_stamped_as_poisons_are(images, index):
    assert torch.equal(AdapBlend().cover(images, index), AdapBlend().poison(images, index))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"side": 0}, "at least 1 piece"), ({"shown": 0.0}, "shown of AdapBlend"), ({"test_alpha": 2}, "test_alpha")],
)
def test_errors(arguments, message):
    with pytest.raises(ValueError, match=message):
        AdapBlend(**arguments)
