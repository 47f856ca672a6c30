"""SAU."""

import pytest
import tiny
import torch
from repair_parts import changed_by_the_attack, first_step, measured, repaired, trained
from torch.nn import functional as F

from lit_backdoor.bundle import open_bundle
from lit_backdoor.defenses.sau import SharedAdversarialUnlearning
from lit_backdoor.functional.shared_examples import sharing_objective
from lit_backdoor.stages import FineTune


def faster(parameters):
    return torch.optim.Adam(parameters, lr=1e-3)


def test_first_step_is_the_loss_as_written_on_the_examples_found():
    stage, found = SharedAdversarialUnlearning(trained(), weight=0.5), []
    search = stage.shared_examples
    stage.shared_examples = lambda *args: found.append(search(*args)) or found[-1]
    grads, _, batch = first_step(stage, tiny.data())
    net, images, labels = open_bundle(trained()).build().eval(), batch["image"], batch["label"]
    assert (found[0] - images).abs().max() <= 0.2 + 1e-6

    def shared(x):
        return float(sharing_objective(net(x), net(x), labels))

    assert shared(found[0]) > max(shared(images), shared((images + 0.2).clamp(0, 1)))
    with torch.no_grad():
        wrong, clean = net(found[0]).argmax(1), net(images).argmax(1)
    rows = (wrong != labels) & (wrong != clean)
    assert rows.any()
    p = net(found[0]).softmax(1)[torch.arange(len(labels)), wrong]
    (F.cross_entropy(net(images), labels) - 0.5 * torch.log(1 - p[rows]).sum() / len(labels)).backward()
    for name, weight in net.named_parameters():
        torch.testing.assert_close(grads[name], weight.grad, rtol=1e-3, atol=1e-5)


@pytest.mark.slow
def test_it_removes_a_backdoor_that_fine_tuning_keeps():
    tuned, unlearned = (
        measured(repaired(kind(trained(), optimizer=faster, batch_norm="eval"), epochs=8).result())
        for kind in (FineTune, SharedAdversarialUnlearning)
    )
    assert min(tuned) > 0.8
    assert unlearned[0] > 0.8
    assert unlearned[1] < 0.4


@pytest.mark.slow
def test_without_a_budget_it_removes_none():
    kept = measured(repaired(SharedAdversarialUnlearning(trained(), budget=1e-3, optimizer=faster), 8).result())
    assert kept[1] > 0.8


def test_nothing_of_the_attack_reaches_it(suspect):
    assert not changed_by_the_attack(lambda: SharedAdversarialUnlearning(suspect))


@pytest.mark.parametrize("options", [{"weight": -1.0}, {"budget": 0.0}, {"steps": 0}])
def test_numbers_out_of_range_are_refused(options):
    with pytest.raises(ValueError, match=f"Expected {next(iter(options))}"):
        SharedAdversarialUnlearning("path", **options)
