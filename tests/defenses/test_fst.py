"""FST."""

import pytest
import tiny
import torch
from repair_parts import changed_by_the_attack, first_step
from torch.nn import functional as F

from lit_backdoor.defenses.fst import FeatureShiftTuning


def test_first_step_is_the_loss_as_written(suspect):
    stage = FeatureShiftTuning(suspect, alpha=0.5)
    stage.configure_model()
    net = tiny.classifier().train()
    net.load_state_dict(stage.classifier.state_dict())  # the drawn layer
    old = tiny.classifier().final_linear.weight
    assert not torch.equal(old, net.final_linear.weight)
    grads, _, batch = first_step(stage, tiny.data())
    (F.cross_entropy(net(batch["image"]), batch["label"]) + 0.5 * (net.final_linear.weight * old).sum()).backward()
    for name, weight in net.named_parameters():
        torch.testing.assert_close(grads[name], weight.grad, rtol=1e-3, atol=1e-5)


def test_weight_keeps_its_norm_and_turns_away_from_the_old_one(suspect):
    old = tiny.classifier().final_linear.weight
    ends = [
        tiny.fit(FeatureShiftTuning(suspect, alpha), tiny.data(), max_epochs=8).classifier.final_linear.weight
        for alpha in (0.0, 5.0)
    ]
    for weight in ends:
        assert float(weight.norm()) == pytest.approx(float(old.norm()), rel=1e-4)
    free, pushed = (float((weight * old).sum() / old.square().sum()) for weight in ends)
    assert abs(free) < 0.2  # without the term nothing turns it
    assert pushed < -0.3


def test_new_layer_depends_on_the_seed_only(suspect):
    def layer(seed, drawn):
        torch.manual_seed(drawn)
        stage = tiny.fit(FeatureShiftTuning(suspect), tiny.data(seed=seed), max_steps=1)
        return stage.classifier.final_linear.weight

    assert torch.equal(layer(3, 1), layer(3, 2))
    assert not torch.equal(layer(3, 1), layer(4, 1))


def test_nothing_of_the_attack_reaches_it(suspect):
    assert not changed_by_the_attack(lambda: FeatureShiftTuning(suspect))


def test_negative_weight_is_refused():
    with pytest.raises(ValueError, match="Expected alpha"):
        FeatureShiftTuning("path", alpha=-0.1)
