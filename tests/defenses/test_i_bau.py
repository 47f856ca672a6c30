"""I-BAU."""

import pytest
import tiny
import torch
from repair_parts import changed_by_the_attack, first_step, measured, repaired, trained
from torch.func import functional_call
from torch.nn import functional as F

from lit_backdoor.bundle import open_bundle
from lit_backdoor.defenses.i_bau import ImplicitUnlearning
from lit_backdoor.stages import FineTune


def faster(parameters):
    return torch.optim.Adam(parameters, lr=1e-3)


def test_search_is_descent_on_the_inner_loss():
    stage = ImplicitUnlearning(trained(), search_passes=2, search_lr=0.5)
    tiny.fit(stage, tiny.data(), max_steps=1)
    net, change = open_bundle(trained()).build().eval(), torch.zeros(1, 3, 16, 16)
    for _ in range(2):
        for batch in stage.passes("root"):
            images, labels = batch["image"][batch["valid"]], batch["label"][batch["valid"]]
            change.requires_grad_(True)
            with torch.enable_grad():
                loss = 0.001 * change.square().sum() - F.cross_entropy(net(images + change), labels)
            change = (change - 0.5 * torch.autograd.grad(loss, change)[0]).detach()
    torch.testing.assert_close(stage.change, change, rtol=1e-4, atol=1e-6)


def test_first_step_is_the_gradient_through_unrolled_descent():
    """With one iteration, v is the outer slope, so the hypergradient is that through one step of descent."""
    stage = ImplicitUnlearning(trained(), iterations=1, step=0.3, search_lr=0.5)
    grads, logged, batch = first_step(stage, tiny.data())
    net, images, labels = open_bundle(trained()).build().eval(), batch["image"], batch["label"]
    weights, found = dict(net.named_parameters()), stage.change.clone().requires_grad_(True)

    def entropy(delta):
        return F.cross_entropy(functional_call(net, weights, (images + delta,)), labels)

    [descent] = torch.autograd.grad(0.001 * found.square().sum() - entropy(found), found, create_graph=True)
    fixed = found.detach().requires_grad_(True)
    [v] = torch.autograd.grad(entropy(fixed), fixed)
    outer = entropy(found.detach())
    (outer - 0.3 * (v * descent).sum()).backward()
    assert float(logged["loss"]) == pytest.approx(outer.item(), rel=1e-4)
    for name, weight in net.named_parameters():
        torch.testing.assert_close(grads[name], weight.grad, rtol=1e-3, atol=1e-5)


@pytest.mark.slow
def test_it_weakens_a_backdoor_that_fine_tuning_keeps():
    tuned = measured(repaired(FineTune(trained(), faster, batch_norm="eval"), 6).result())
    unlearned = measured(repaired(ImplicitUnlearning(trained(), search_lr=1.0, optimizer=faster), 6).result())
    assert min(tuned) > 0.8
    assert unlearned[0] > 0.8
    assert unlearned[1] < tuned[1] - 0.3


def test_where_one_image_a_batch_is_changed_the_backdoor_stays():
    stage = ImplicitUnlearning(trained(), share=0.01, search_lr=1.0, optimizer=faster)
    assert measured(repaired(stage, 3).result())[1] > 0.8


def test_nothing_of_the_attack_reaches_it(suspect):
    assert not changed_by_the_attack(lambda: ImplicitUnlearning(suspect))


@pytest.mark.parametrize(
    "options", [{"share": 0.0}, {"penalty": -1.0}, {"search_passes": 0}, {"iterations": -1}, {"search_lr": 0.0}]
)
def test_numbers_out_of_range_are_refused(options):
    with pytest.raises(ValueError, match=f"Expected {next(iter(options))}"):
        ImplicitUnlearning("path", **options)
