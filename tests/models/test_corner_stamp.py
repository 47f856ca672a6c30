import pytest
import torch

from lit_backdoor.models.corner_stamp import CornerStamp
from lit_backdoor.recipe import recipe

IMAGES = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def test_corner_is_filled_and_nothing_else():
    before, stamped = IMAGES.clone(), CornerStamp(3, (0.1, 0.5, 2.0))(IMAGES)
    for row, column in torch.cartesian_prod(torch.arange(8), torch.arange(8)).tolist():
        pixel = torch.tensor([0.1, 0.5, 2.0]).expand(2, 3) if max(row, column) < 3 else before[:, :, row, column]
        assert torch.equal(stamped[:, :, row, column], pixel)
    assert torch.equal(IMAGES, before)
    assert recipe(CornerStamp(2, [0.5]))["init_args"] == {"size": 2, "color": [0.5]}


def test_what_cannot_be_stamped_is_refused():
    for size, color in ((0, [0.5]), (1, []), (1, [float("nan")])):
        with pytest.raises(ValueError, match="Expected a stamp of at least one pixel"):
            CornerStamp(size, color)
    with pytest.raises(ValueError, match="at least 9 pixels a side"):
        CornerStamp(9, [0.5] * 3)(IMAGES)
