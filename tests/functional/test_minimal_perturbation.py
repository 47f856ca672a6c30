import numpy as np
import pytest
import torch
from scipy.optimize import LinearConstraint, minimize, nnls

from lit_backdoor.functional.minimal_perturbation import (
    minimal_perturbations,
    perturbation_by_nnls,
    required_gains,
)


def layer(classes=5, width=7, count=12, seed=0):
    """Weights, biases and latents after a ReLU."""
    generator = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.randn(*shape, generator=generator)  # noqa: E731
    return draw(classes, width), draw(classes), draw(count, width).relu()


def unreduced(weight, bias, latents, target, margin=0.0):
    """All n (C - 1) constraints as they stand in the paper, with biases: rows and right sides."""
    rows, sides = [], []
    for j in range(len(weight)):
        if j != target:
            way = (weight[target] - weight[j]).double().numpy()
            for x in latents.double().numpy():
                rows.append(way)
                sides.append(margin - way @ x - float(bias[target] - bias[j]))
    return np.array(rows), np.array(sides)


@pytest.mark.parametrize("margin", [0.0, 0.5])
def test_reduced_program_equals_the_unreduced_one(margin):
    weight, bias, latents = layer()
    found = minimal_perturbations(weight, required_gains(weight, bias, latents, margin))
    for target in range(len(weight)):
        rows, sides = unreduced(weight, bias, latents, target, margin)
        assert (rows @ found[target].numpy() >= sides - 1e-7).all()
        reference = minimize(
            lambda s: 0.5 * s @ s, np.ones(weight.shape[1]), jac=lambda s: s, method="SLSQP", tol=1e-12,
            constraints=LinearConstraint(rows, lb=sides),
        )  # fmt: skip
        assert reference.success
        np.testing.assert_allclose(found[target].numpy(), reference.x, atol=1e-5)


@pytest.mark.parametrize(
    ("classes", "width", "count"), [(3, 2, 4), (10, 32, 100), (43, 64, 60), (30, 24, 50), (70, 96, 40)]
)
def test_program_equals_its_dual_where_a_shortfall_costs_too_much(classes, width, count):
    weight, bias, latents = layer(classes, width, count, seed=classes)
    required = required_gains(weight, bias, latents)
    found, bent = minimal_perturbations(weight, required), minimal_perturbations(weight, required, slack=1e6)
    torch.testing.assert_close(bent, found, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("slack", [None, 0.5])
def test_some_classes_are_solved_as_all_are(slack):
    weight, bias, latents = layer(8, 12, 30)
    required = required_gains(weight, bias, latents)
    found = minimal_perturbations(weight, required, [5, 2], slack)
    assert torch.equal(found, minimal_perturbations(weight, required, slack=slack)[[5, 2]])


def test_program_of_a_single_constraint_has_a_closed_form():
    weight, required = torch.tensor([[1.0, 0.0, 0.0], [0.0, 2.0, 0.0]]), torch.tensor([[0.0, 3.0], [-1.0, 0.0]])
    found = minimal_perturbations(weight, required)
    torch.testing.assert_close(found[0], 3.0 * torch.tensor([1.0, -2.0, 0.0]).double() / 5)
    assert not found[1].any()  # all images are class 1 already


def test_shifted_latents_win_by_the_margin():
    weight, bias, latents = layer(6, 16, 40)
    found = minimal_perturbations(weight, required_gains(weight, bias, latents, margin=0.1))
    for target, shift in enumerate(found):
        logits = (latents + shift) @ weight.double().T + bias
        others = logits[:, torch.arange(6) != target].amax(1)
        assert (logits[:, target] - others).min() == pytest.approx(0.1, abs=1e-6)


def test_planted_direction_makes_its_class_the_smallest():
    generator = torch.Generator().manual_seed(1)
    weight, latents = torch.randn(10, 64, generator=generator), torch.randn(80, 64, generator=generator).relu()
    weight[:, 0], latents[:, 0] = -15.0, 0.0
    weight[7, 0] = 15.0  # unit 0 says 7 and is silent on clean images
    norms = minimal_perturbations(weight, required_gains(weight, None, latents)).norm(dim=1)
    assert norms.argmin() == 7


@pytest.mark.parametrize("quantile", [0.3, 0.75, 0.95, 1.0])
def test_quantile_is_that_of_numpy(quantile):
    weight, bias, latents = layer(4, 6, 20)
    logits = (latents.double() @ weight.double().T + bias.double()).numpy()
    gaps = logits[:, None, :] - logits[:, :, None]  # [n, k, j]
    expected = np.quantile(gaps, quantile, axis=0, method="inverted_cdf")
    np.testing.assert_allclose(required_gains(weight, bias, latents, quantile=quantile).numpy(), expected, atol=1e-12)


@pytest.mark.parametrize("quantile", [0.7, 0.98, 1.0])
@pytest.mark.parametrize("kind", ["random", "ties", "by class"])
def test_few_images_of_each_class_give_the_gains_of_all(kind, quantile):
    weight, bias, latents = layer(12, 16, 400)
    if kind == "ties":
        latents = latents[torch.arange(400) % 5]
    if kind == "by class":  # logits of two classes hang together, which the guess does not expect
        latents = (latents + 4 * weight[torch.arange(400) % 12]).relu()
    logits = weight.double() @ latents.double().T + bias.double()[:, None]
    gaps = (logits - logits[:, None]).sort(dim=2).values
    expected = gaps[:, :, int(np.ceil(quantile * 400 - 1e-9)) - 1].fill_diagonal_(0)
    assert torch.equal(required_gains(weight, bias, latents, quantile=quantile), expected)


def test_slack_bounds_the_dual_and_bends_an_infeasible_program():
    weight, bias, latents = layer(4, 6, 20)
    required = required_gains(weight, bias, latents)
    hard, soft = minimal_perturbations(weight, required), minimal_perturbations(weight, required, slack=0.05)
    torch.testing.assert_close(minimal_perturbations(weight, required, slack=1e6), hard, rtol=1e-5, atol=1e-6)
    for target in range(4):
        rows = (weight[target] - weight[torch.arange(4) != target]).double().numpy()
        sides = required[target][torch.arange(4) != target].numpy()
        # the primal with its shortfalls: 1/2 |s|^2 + price * sum(short), rows s >= sides - short
        price = np.array([0.0] * 6 + [0.05] * 3)
        quadratic = np.diag([1.0] * 6 + [0.0] * 3)
        primal = minimize(
            lambda v, q=quadratic, p=price: 0.5 * v @ q @ v + p @ v, np.ones(9), tol=1e-12, method="SLSQP",
            bounds=[(None, None)] * 6 + [(0, None)] * 3, constraints=LinearConstraint(np.c_[rows, np.eye(3)], lb=sides),
        )  # fmt: skip
        np.testing.assert_allclose(soft[target].numpy(), primal.x[:6], atol=1e-4)
    twins = weight.clone()
    twins[1] = twins[3]
    assert minimal_perturbations(twins, required, slack=0.5).isfinite().all()


def test_same_weights_are_refused_by_name():
    weight, bias, latents = layer()
    weight[4] = weight[1]
    with pytest.raises(ValueError, match="class 1 are the same as, or a mix of, those for 4"):
        minimal_perturbations(weight, required_gains(weight, bias, latents))


def test_weights_that_are_a_mix_of_others_are_refused_by_name():
    weight, _, latents = layer(classes=5, width=16)
    weight[2] = 0.5 * (weight[0] + weight[3])
    required = required_gains(weight, None, latents, margin=0.1)
    with pytest.raises(ValueError, match="class 2 are the same as, or a mix of, those for 0, 3,"):
        minimal_perturbations(weight, required)


def test_nnls_reference_solves_the_unreduced_program_too():
    weight, bias, latents = layer(4, 5, 8, seed=3)
    rows, sides = unreduced(weight, bias, latents, 2)
    system = np.vstack((rows.T, sides))
    share, _ = nnls(system, np.eye(len(system))[-1])
    rest = system @ share - np.eye(len(system))[-1]
    found = perturbation_by_nnls(weight, required_gains(weight, bias, latents), 2)
    np.testing.assert_allclose(found.numpy(), -rest[:-1] / rest[-1], atol=1e-8)


def test_half_precision_weights_and_latents_are_taken():
    weight, bias, latents = (part.bfloat16() for part in layer())
    found = minimal_perturbations(weight, required_gains(weight, bias, latents))
    assert found.dtype == torch.float64


@pytest.mark.parametrize("bad", [{"quantile": 0.0}, {"quantile": 1.5}])
def test_quantile_out_of_range_is_refused(bad):
    with pytest.raises(ValueError, match="quantile in"):
        required_gains(*layer(), **bad)


def test_latents_that_do_not_fit_and_slack_below_zero_are_refused():
    weight, bias, latents = layer()
    for wrong in (latents[:0], latents[:, :3]):
        with pytest.raises(ValueError, match=r"latents \[n, 7\]"):
            required_gains(weight, bias, wrong)
    with pytest.raises(ValueError, match="above 0"):
        minimal_perturbations(weight, torch.ones(5, 5), slack=0.0)
