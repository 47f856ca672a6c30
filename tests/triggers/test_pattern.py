import numpy as np
import pytest
import tiny
import torch
from PIL import Image

from lit_backdoor.bundle import open_bundle, save_bundle
from lit_backdoor.triggers import Attack, Patch
from lit_backdoor.triggers.pattern import chosen_per_index, gaussian_per_index, uniform_per_index


def mix(value):
    for factor, shift in ((0x7FEB352D, 16), (0x846CA68B, 15)):
        value = value ^ (value >> np.uint32(shift))
        value = value * np.uint32(factor)
    return value ^ (value >> np.uint32(16))


def test_hash_in_unsigned_numpy():
    index, count, seed = np.array([0, 1, 77, 2**31 - 1], dtype=np.uint32), 50, 3
    key = mix(index + np.uint32((seed * 0x9E3779B1 + 0x7F4A7C15) % 2**32))
    words = mix(key[:, None] + mix(np.arange(count, dtype=np.uint32)))
    expected = (words >> np.uint32(8)).astype(np.float32) / 2**24
    drawn = uniform_per_index(torch.from_numpy(index.astype(np.int64)), count, seed)
    np.testing.assert_array_equal(drawn.numpy(), expected)


def test_uniform_moments_and_independence():
    drawn = uniform_per_index(torch.arange(1000), 1000, 0).double()
    assert drawn.min() >= 0
    assert drawn.max() < 1
    assert drawn.mean().item() == pytest.approx(0.5, abs=2e-3)
    assert drawn.var().item() == pytest.approx(1 / 12, rel=1e-2)
    for side in (drawn, drawn.T):
        correlation = torch.corrcoef(side[:100]).fill_diagonal_(0)
        assert correlation.abs().max() < 5 / 1000**0.5


def test_gaussian_moments_and_odd_counts():
    drawn = gaussian_per_index(torch.arange(500), 1001, 0).double()
    assert drawn.shape == (500, 1001)
    assert torch.isfinite(drawn).all()
    assert drawn.mean().item() == pytest.approx(0, abs=5e-3)
    assert drawn.var().item() == pytest.approx(1, rel=1e-2)


@pytest.mark.parametrize("draw", [uniform_per_index, gaussian_per_index])
def test_an_index_is_not_changed_in_place_and_rows_stand_alone(draw):
    index = torch.tensor([5, 900, 5], dtype=torch.int32)
    rows = draw(index, 64, 1)
    assert index.tolist() == [5, 900, 5]
    assert torch.equal(rows[0], rows[2])
    torch.testing.assert_close(draw(index[1:2], 64, 1)[0], rows[1], rtol=0, atol=1e-6)


def test_chooses_as_many_places_for_each_index():
    chosen = chosen_per_index(torch.arange(2000), 16, 5, 1)
    assert (chosen.sum(1) == 5).all()
    torch.testing.assert_close(chosen.float().mean(0), torch.full((16,), 5 / 16), rtol=0, atol=0.05)
    assert torch.equal(chosen_per_index(torch.tensor([7, 3]), 16, 5, 1), chosen[[7, 3]])
    assert not torch.equal(chosen_per_index(torch.arange(2000), 16, 5, 2), chosen)


def test_a_bundle_keeps_the_picture_of_its_trigger(tmp_path):
    picture = tmp_path / "picture.png"
    Image.new("RGB", (4, 4), (200, 10, 10)).save(picture)
    attack = Attack(Patch(4, pattern=str(picture)))
    images, rows = torch.rand(2, 3, 16, 16), torch.arange(2)
    stamped = attack.trigger(images, rows)
    save_bundle(tmp_path / "suspect", kind="suspect", module=tiny.classifier(), attack=attack)
    Image.new("RGB", (4, 4), (0, 0, 255)).save(picture)
    assert torch.equal(open_bundle(tmp_path / "suspect").attack().trigger(images, rows), stamped)
    picture.unlink()
    assert torch.equal(open_bundle(tmp_path / "suspect").attack().trigger(images, rows), stamped)
