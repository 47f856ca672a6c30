import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lit_backdoor.functional.decoupling import (
    adaptive_loss,
    error,
    hinged_loss,
    inversion_loss,
    mask_loss,
    occlusions,
    pieces,
    replace_share,
    soft_mask,
    tau_to_pixels,
    unlearning_loss,
)
from lit_backdoor.models import UNet, WarpField


@pytest.fixture
def case():
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(shape, generator=generator)

    weight = draw(5, 3 * 2 * 2)
    return {
        "head": lambda features: features.flatten(1) @ weight.T.to(features.dtype),
        "features": draw(6, 3, 2, 2),
        "generated_features": draw(6, 3, 2, 2),
        "mask": torch.rand(1, 3, 2, 2, generator=generator),
        "images": torch.rand(6, 3, 4, 4, generator=generator),
        "generated": torch.rand(6, 3, 4, 4, generator=generator),
        "target": torch.tensor([0, 1, 2, 3, 4, 0]),
    }


def test_soft_mask_lies_within_zero_and_one():
    raw = torch.tensor([-100.0, -1.0, 0.0, 1.0, 100.0])
    mask = soft_mask(raw)
    np.testing.assert_allclose(mask, np.tanh(raw.numpy()) / (2 + 1e-7) + 0.5, atol=1e-7)
    assert mask.min() >= 0
    assert mask.max() <= 1
    assert mask[2] == 0.5


def test_mask_loss_equals_eq_1(case):
    h, m, y = case["features"], case["mask"], case["target"]
    expected = F.cross_entropy(case["head"](h * m), y) - F.cross_entropy(case["head"](h * (1 - m)), y)
    torch.testing.assert_close(mask_loss(case["head"], h, m, y), expected)
    swapped = mask_loss(case["head"], h, 1 - m, y)
    torch.testing.assert_close(swapped, -expected)


def test_mask_loss_moves_a_mask_toward_what_classifies():
    features = torch.tensor([[5.0, 0.0, 0.0], [0.0, 5.0, 0.0]]) + torch.tensor([0.0, 0.0, 5.0])
    head = nn.Linear(3, 3, bias=False)
    nn.init.eye_(head.weight)
    raw = torch.zeros(1, 3, requires_grad=True)
    mask_loss(head, features, soft_mask(raw), torch.tensor([0, 1])).backward()
    assert (raw.grad[0, :2] < 0).all()
    assert raw.grad[0, 2] > 0


def inversion(case, **given):
    names = ("images", "generated", "features", "generated_features", "mask")
    return inversion_loss(*(case[name] for name in names), **given)


@pytest.mark.parametrize("norm", ["l1", "l2"])
def test_inversion_loss_equals_reference_within_bounds(case, norm):
    power = 2 if norm == "l2" else 1
    gap = (case["features"] - case["generated_features"]).double().numpy()
    m = case["mask"].double().numpy()
    benign, backdoor = (np.mean(np.abs(gap * part) ** power) for part in (m, 1 - m))
    found = inversion(case, tau=10.0, norm=norm)
    assert found.bounded
    assert found.loss.item() == pytest.approx(0.01 * benign - backdoor, rel=1e-5)
    assert found.benign.item() == pytest.approx(benign, rel=1e-5)
    assert found.backdoor.item() == pytest.approx(backdoor, rel=1e-5)
    paper = inversion(case, tau=10.0, norm=norm, feature_bound=float("inf"), benign_weight=1)
    assert paper.loss.item() == pytest.approx(benign - backdoor, rel=1e-5)


@pytest.mark.parametrize("bound", [{"tau": 0.01}, {"tau": 10.0, "feature_bound": 0.01}])
def test_inversion_loss_is_the_image_error_out_of_bounds(case, bound):
    case["generated_features"].requires_grad_()
    case["generated"].requires_grad_()
    found = inversion(case, **bound)
    assert not found.bounded
    torch.testing.assert_close(found.loss, F.mse_loss(case["generated"], case["images"]))
    found.loss.backward()
    assert case["generated"].grad.abs().sum() > 0
    assert (case["generated_features"].grad == 0).all()


def test_inversion_loss_changes_at_tau(case):
    image = F.mse_loss(case["generated"], case["images"]).item()
    assert inversion(case, tau=image * 1.001).bounded
    assert not inversion(case, tau=image * 0.999).bounded


def test_inversion_without_decoupling_counts_every_feature_as_backdoor(case):
    case["mask"] = torch.zeros(1, 3, 2, 2)
    found = inversion(case, tau=10.0)
    torch.testing.assert_close(found.loss, -F.mse_loss(case["generated_features"], case["features"]))


def test_bf16_features_are_compared_in_full_precision(case):
    half = {name: value.bfloat16() if torch.is_tensor(value) else value for name, value in case.items()}
    found = inversion(half, tau=10.0)
    assert found.loss.dtype == torch.float32
    assert found.loss.item() == pytest.approx(inversion(case, tau=10.0).loss.item(), rel=2e-2)


@pytest.mark.parametrize("call", [lambda tau: tau_to_pixels(tau, (0.2,)), None])
@pytest.mark.parametrize("tau", [0.0, -1.0, float("nan")])
def test_tau_must_be_positive(case, call, tau):
    with pytest.raises(ValueError, match="tau > 0"):
        inversion(case, tau=tau) if call is None else call(tau)


def test_tau_in_pixels_is_the_error_of_an_image_off_by_tau():
    std = (0.247, 0.243, 0.261)
    gap = np.sqrt(0.3) * np.array(std)
    assert tau_to_pixels(0.3, std) == pytest.approx(np.mean(gap**2))
    assert tau_to_pixels(0.3, std, "l1") == pytest.approx(0.3 * np.mean(std))


def test_unknown_norm_names_the_known():
    with pytest.raises(ValueError, match="l1, l2"):
        error(torch.zeros(1), torch.zeros(1), "l3")
    with pytest.raises(ValueError, match="l1, l2"):
        tau_to_pixels(0.3, (0.2,), "l3")


def test_unlearning_loss_equals_eq_3(case):
    h, g, y = case["features"], case["generated_features"], case["target"]
    a, b = case["head"](h), case["head"](g)
    expected = F.cross_entropy(a, y) + F.cross_entropy(b, y) + ((h - g) ** 2).mean()
    torch.testing.assert_close(unlearning_loss(a, b, h, g, y), expected)


def test_adaptive_loss_equals_eq_7_to_10(case):
    head, h, m, y = case["head"], case["features"], case["mask"], case["target"]
    t, label = case["generated_features"][:4], torch.zeros(4, dtype=torch.long)
    expected = sum(
        F.cross_entropy(head(inputs), labels)
        for inputs, labels in [(h, y), (t, label), (h * m, y), (h * (1 - m), y), (t * (1 - m), label)]
    )
    torch.testing.assert_close(adaptive_loss(head, h, t, m, y, label), expected)


@pytest.mark.parametrize("tau", [1e-3, 10.0])
def test_hinge_counts_only_what_is_beyond_the_bound(case, tau):
    names = ("images", "generated", "features", "generated_features", "mask")
    parts = inversion_loss(*(case[name] for name in names), tau=tau)
    image, benign, backdoor = (float(part) for part in (parts.image, parts.benign, parts.backdoor))
    expected = 10 * max(0, image / tau - 1) + 0.5 * benign - np.log(backdoor + 1e-6)
    assert hinged_loss(parts, tau, benign_weight=0.5).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("share", "count"), [(0.1, 1), (0.5, 4), (1.0, 6)])
def test_replaced_rows_are_a_random_share_of_the_batch(case, share, count):
    seen = []

    def generator(images):
        seen.append(images)
        return (1 - images).double()

    found = replace_share(case["images"], generator, share)
    replaced = (found == 1 - case["images"]).flatten(1).all(1)
    assert int(replaced.sum()) == count == len(seen[0])
    torch.testing.assert_close(found[~replaced], case["images"][~replaced], rtol=0, atol=0)


@pytest.mark.parametrize("net", [lambda: UNet(base=8, downs=2, start="random"), WarpField])
def test_rows_generated_among_themselves_equal_those_of_the_whole_batch(net):
    torch.manual_seed(0)
    generator, images = net(), torch.rand(20, 3, 16, 16)
    with torch.no_grad():
        whole = generator(images)
        mixed = replace_share(images, generator, 0.3)
    replaced = (mixed != images).flatten(1).any(1)
    assert int(replaced.sum()) == 7
    torch.testing.assert_close(mixed[replaced], whole[replaced], rtol=0, atol=1e-6)


def test_pieces_are_squares_of_the_trigger_at_one_strength_per_image():
    torch.manual_seed(0)
    images = torch.full((64, 1, 8, 8), 0.5)
    change = torch.full_like(images, 0.1)
    found = (pieces(images, images + change, grid=4, strongest=2.0) - images) / 0.1
    squares = found.view(64, 4, 2, 4, 2)
    assert torch.allclose(squares, squares[:, :, :1, :, :1].expand_as(squares), atol=1e-5)
    strength = found.amax((1, 2, 3))
    assert ((found.abs() < 1e-5) | torch.isclose(found, strength.view(-1, 1, 1, 1), atol=1e-4)).all()
    assert 1 < strength.max() <= 2 + 1e-5
    kept = (found.abs() > 1e-5).float().mean((1, 2, 3))
    assert kept.min() < 0.2
    assert kept.max() > 0.8


def test_pieces_stay_images():
    torch.manual_seed(0)
    found = pieces(torch.rand(8, 3, 9, 9), torch.rand(8, 3, 9, 9))
    assert 0 <= found.min() <= found.max() <= 1


def test_occlusions_cover_one_rectangle_of_each_image():
    torch.manual_seed(0)
    images = torch.full((300, 3, 20, 12), 0.5)
    found = occlusions(images, largest=0.3)
    assert 0 <= found.min() <= found.max() <= 1
    covered = (found != images).any(1)
    rows, columns = covered.any(2), covered.any(1)
    assert (covered == rows[:, :, None] & columns[:, None, :]).float().mean() > 0.99  # noise may hit the image's color
    for hit, most in ((rows, 6), (columns, 3)):
        assert hit.sum(1).min() >= 2
        assert hit.sum(1).max() == most
        assert (hit.float().mean(0) > 0).all()
    change = (found - images).abs().amax((1, 2, 3))
    assert (change > 0.49).float().mean() > 0.3
