"""SEAM."""

import pytest
import tiny
import torch
from repair_parts import changed_by_the_attack, measured, repaired, trained
from torch.nn import functional as F

from lit_backdoor.bundle import open_bundle
from lit_backdoor.defenses.seam import SelectiveAmnesia
from lit_backdoor.functional.wrong_labels import wrong_labels


def faster(parameters):
    return torch.optim.Adam(parameters, lr=3e-3)


def test_it_forgets_by_wrong_labels_and_recovers_by_true_ones():
    stage = SelectiveAmnesia(trained(), forget_epochs=12, optimizer=faster)
    steps = tiny.recorded(stage)
    repaired(stage, epochs=22)
    said = stage.numbers()
    assert 0 < said["forget_epochs"] < 12
    assert said["forgotten_to"] < 0.5  # twice the accuracy of chance
    assert measured(stage.result())[0] > 0.8
    assert float(steps[0]["loss"]) > 2  # the victim is sure of the true labels
    assert float(steps[-1]["loss"]) < 0.5


def test_first_step_is_the_cross_entropy_of_labels_drawn_from_the_step_s_seed():
    stage = SelectiveAmnesia(trained(), forget_epochs=1, batch_norm="eval")
    seeds, losses = [], stage.losses
    stage.losses = lambda batch: seeds.append(torch.get_rng_state()) or losses(batch)
    steps = tiny.recorded(stage)
    net = open_bundle(trained()).build().eval()
    tiny.fit(stage, tiny.data(), max_epochs=2)
    batch = steps[0]["batch"]
    torch.set_rng_state(seeds[0])
    expected = F.cross_entropy(net(batch["image"]), wrong_labels(batch["label"], 4))
    assert float(steps[0]["loss"]) == pytest.approx(expected.item(), rel=1e-4)


def test_too_short_a_forgetting_is_warned_of():
    with pytest.warns(UserWarning, match="After 1 epochs of forgetting"):
        repaired(SelectiveAmnesia(trained(), forget_epochs=1, optimizer=lambda p: torch.optim.SGD(p, lr=1e-6)), 2)


def test_a_run_without_an_epoch_to_recover_in_is_refused(suspect):
    with pytest.raises(ValueError, match="none is left to recover in"):
        tiny.fit(SelectiveAmnesia(suspect, forget_epochs=2), tiny.data(), max_epochs=2)


def test_nothing_of_the_attack_reaches_it(suspect):
    assert not changed_by_the_attack(lambda: SelectiveAmnesia(suspect, forget_epochs=0))


def test_negative_length_is_refused():
    with pytest.raises(ValueError, match="Expected forget_epochs"):
        SelectiveAmnesia("path", forget_epochs=-1)
