import pytest
import torch

from lit_backdoor.bundle import open_bundle, save_bundle
from lit_backdoor.triggers import Attack, LabelConsistent, LearnedPatch, UniversalNoise


def test_noise_is_magnified_at_test_time_only(images, index):
    trigger, noise = UniversalNoise(magnify=3), torch.rand(3, 32, 32) * 0.2 - 0.1
    assert torch.equal(trigger(images, index), images)
    trigger.hold(noise=noise)
    torch.testing.assert_close(trigger(images, index), (images + 3 * noise).clamp(0, 1))
    for stamp in (trigger.poison, trigger.cover):
        torch.testing.assert_close(stamp(images, index), (images + noise).clamp(0, 1))


def test_noise_is_for_one_size():
    trigger = UniversalNoise()
    trigger.hold(noise=torch.rand(3, 16, 16))
    with pytest.raises(ValueError, match=r"found for, \[16, 16\], got \[16, 20\]"):
        trigger(torch.rand(2, 3, 16, 20), torch.arange(2))
    with pytest.raises(ValueError, match="above 0"):
        UniversalNoise(magnify=0)


def test_patch_begins_as_noise_and_takes_what_is_found(images, index):
    trigger = LearnedPatch(4, place="top_left", seed=2)
    assert trigger.values.std() > 0.2
    trigger.values.fill_(0.25)
    stamped = trigger(images, index)
    assert (stamped[..., :4, :4] == 0.25).all()
    stamped[..., :4, :4] = images[..., :4, :4]
    assert torch.equal(stamped, images)


@pytest.mark.parametrize("amplitude", [1.0, 0.3])
def test_every_corner_gets_the_checker_mirrored(images, index, amplitude):
    stamped = LabelConsistent(3, amplitude)(images, index)
    change = amplitude * torch.tensor([[1.0, -1, 1], [-1, 1, -1], [1, -1, 1]])
    expected = images.clone()
    for rows in (slice(3), slice(-3, None)):
        for columns in (slice(3), slice(-3, None)):
            expected[..., rows, columns] = (images[..., rows, columns] + change).clamp(0, 1)
    torch.testing.assert_close(stamped, expected)


def test_rows_that_are_planted_carry_their_own_change_and_others_none(images):
    trigger, changes = LabelConsistent(), torch.rand(3, 3, 32, 32) * 0.1 - 0.05
    trigger.hold_changes(torch.tensor([9, 2, 5]), changes)
    index = torch.tensor([5, 3, 9, 2, 11, 0])
    changed = images.clone()
    for row, change in ((0, 2), (2, 0), (3, 1)):
        changed[row] = (images[row] + changes[change].half().float()).clamp(0, 1)
    assert torch.equal(trigger.poison(images, index), trigger(changed, index))
    assert not torch.equal(trigger(images, index)[0], trigger.poison(images, index)[0])


def test_a_bundle_keeps_what_was_found(images, tmp_path):
    trigger = LabelConsistent()
    trigger.hold_changes(torch.arange(6), torch.rand(6, 3, 32, 32) * 0.1 - 0.05)
    save_bundle(tmp_path / "a", kind="trigger", module=trigger, attack=Attack(trigger))
    bundle = open_bundle(tmp_path / "a")
    for again in (bundle.build(), bundle.attack().trigger):
        assert torch.equal(again.poison(images, torch.arange(6)), trigger.poison(images, torch.arange(6)))


def test_errors(images, index):
    with pytest.raises(ValueError, match="at least one pixel"):
        LabelConsistent(0)
    with pytest.raises(ValueError, match="at least 6 px"):
        LabelConsistent()(torch.rand(6, 3, 5, 9), index)
    trigger = LabelConsistent()
    trigger.hold_changes(torch.arange(2), torch.zeros(2, 3, 16, 16))
    with pytest.raises(ValueError, match="found for"):
        trigger.poison(images, index)
