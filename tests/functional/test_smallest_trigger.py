import torch

from lit_backdoor.functional.cost_schedule import CostRule
from lit_backdoor.functional.smallest_trigger import smallest_trigger

RULE = CostRule(up=1.5, down=1.5**1.5, patience=3, threshold=0.99)


def classify(images):
    """Class 1 if the corner is bright, class 2 if the whole image is."""
    corner, whole = images[:, :, :2, :2].mean((1, 2, 3)), images.mean((1, 2, 3))
    return 30 * torch.stack((torch.zeros_like(whole), corner - 0.6, whole - 0.6), 1)


def search(target, seed=0):
    dark = torch.full((6, 3, 8, 8), 0.3)
    mask, pattern = smallest_trigger(classify, dark, target, RULE, 60, 0.1, torch.Generator().manual_seed(seed))
    assert (classify(dark * (1 - mask) + mask * pattern).argmax(1) == target).all()
    return mask, pattern


def test_trigger_is_found_where_the_classifier_looks_and_is_small_where_that_is_little():
    (corner, _), (whole, _) = search(1), search(2)
    assert corner.shape == (1, 8, 8)
    assert corner[:, :2, :2].mean() > 5 * corner[:, 4:, 4:].mean()
    assert corner.sum() < 0.5 * whole.sum()


def test_start_is_a_function_of_the_generator():
    assert torch.equal(search(1)[0], search(1)[0])
    assert not torch.equal(search(1)[0], search(1, seed=1)[0])
