"""Projected gradient ascent in pixel space."""

import pytest
import torch

from lit_backdoor.functional.adversarial import project, projected_ascent


def test_ascent_of_a_linear_objective_ends_in_the_corner_of_the_box():
    torch.manual_seed(0)
    images, slope = torch.rand(3, 2, 4, 4), torch.randn(3, 2, 4, 4)
    found = projected_ascent(images, lambda x: (slope * x).sum(), torch.zeros_like(images), 0.3, 5, 0.1)
    torch.testing.assert_close(found, (images + 0.3 * slope.sign()).clamp(0, 1))


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_changes_stay_within_the_budget_and_images_in_range(norm):
    images = torch.rand(3, 2, 4, 4)
    change = project(torch.randn(3, 2, 4, 4), images, 0.5, norm)
    sizes = torch.linalg.vector_norm(change.flatten(1), float("inf") if norm == "linf" else 2, dim=1)
    assert sizes.max() <= 0.5 + 1e-6
    assert (images + change).min() >= 0
    assert (images + change).max() <= 1
    small = torch.full((3, 2, 4, 4), 0.01)
    torch.testing.assert_close(project(small, images * 0.9, 0.5, norm), small)
