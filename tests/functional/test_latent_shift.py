import numpy as np
import pytest
import torch
import torch.nn.functional as F

from lit_backdoor.functional.latent_shift import distance_along, movement_along, shifted_loss, top_units


def parts(batch=6, width=5, classes=4):
    generator = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(*shape, generator=generator)  # noqa: E731
    return draw(batch, width), draw(classes, width), draw(classes), torch.tensor([0, 1, 2, 3, 1, 1])


def test_shifted_loss_is_the_mean_over_images_of_other_classes():
    latents, weight, bias, labels = parts()
    shifts = torch.randn(2, 5)
    terms = [
        F.cross_entropy((weight @ (latents[i] + shifts[t]) + bias)[None], labels[[i]])
        for t, target in enumerate((1, 2)) for i in range(6) if labels[i] != target
    ]  # fmt: skip
    found = shifted_loss(latents, weight, bias, labels, shifts, torch.tensor([1, 2]))
    torch.testing.assert_close(found, torch.stack(terms).mean())


def test_shifted_loss_of_images_of_the_class_alone_is_zero():
    latents, weight, bias, _ = parts()
    found = shifted_loss(latents, weight, bias, torch.full((6,), 3), torch.ones(1, 5), torch.tensor([3]))
    assert found == 0


def test_shifted_loss_is_in_full_precision_under_autocast():
    latents, weight, bias, labels = parts()
    given = weight, bias, labels, torch.ones(1, 5), torch.tensor([2])
    with torch.autocast("cpu", torch.bfloat16):
        found = shifted_loss(latents, *given)
    torch.testing.assert_close(found, shifted_loss(latents, *given), rtol=0, atol=0)


def test_movement_is_the_absolute_cosine():
    before, moved = torch.zeros(3, 2), torch.tensor([[0.0, 3e3], [-2e3, 0.0], [3e3, 3e3]])
    found = movement_along(moved, before, torch.tensor([[1.0, 0.0]]))
    assert found.item() == pytest.approx((0 + 1 + 0.5**0.5) / 3, rel=1e-4)


def test_movement_has_a_finite_gradient_where_nothing_moved():
    latents = torch.ones(3, 2, requires_grad=True)
    movement_along(latents, torch.ones(3, 2), torch.tensor([[3.0, 4.0], [0.0, 0.0]])).backward()
    assert latents.grad.isfinite().all()


def test_top_units_are_those_of_all_classes_at_least_one_each():
    shifts = torch.tensor([[0.0, -9.0, 1.0, 2.0], [0.0, 3.0, 1.0, -4.0]])
    assert top_units(shifts, 0.25).tolist() == [1, 3]
    assert top_units(shifts[:1], 0.01).tolist() == [1]
    assert top_units(shifts[:1], 0.5).tolist() == [1, 3]


def test_distance_along_is_the_mean_projection_in_lengths_of_the_perturbation():
    generator = torch.Generator().manual_seed(2)
    latents, shifts = torch.randn(7, 5, generator=generator), torch.randn(2, 5, generator=generator)
    labels, targets = torch.tensor([0, 1, 2, 3, 1, 0, 2]), torch.tensor([1, 3])
    pairs = [
        np.dot(latents[i].numpy(), shifts[t].numpy()) / np.linalg.norm(shifts[t].numpy()) ** 2
        for i in range(7)
        for t in range(2)
        if labels[i] != targets[t]
    ]
    found = distance_along(latents, shifts, labels, targets)
    assert float(found) == pytest.approx(np.mean(pairs), rel=1e-5)
    moved = distance_along(latents + 3 * shifts[:1], shifts[:1], labels, targets[:1])
    assert float(moved - distance_along(latents, shifts[:1], labels, targets[:1])) == pytest.approx(3, rel=1e-5)


def test_distance_along_without_a_pair_is_zero_with_a_gradient():
    latents = torch.ones(2, 3, requires_grad=True)
    distance_along(latents, torch.ones(1, 3), torch.tensor([1, 1]), torch.tensor([1])).backward()
    assert not latents.grad.any()
    assert float(distance_along(latents, torch.zeros(0, 3), torch.tensor([1, 1]), torch.tensor([]).long())) == 0
