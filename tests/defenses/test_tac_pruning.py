"""Pruning of the units that the perturbation changes most."""

import pytest
import tiny
import torch
from tac_parts import report, solved, twins

from lit_backdoor.defenses.tac import TACPruning
from lit_backdoor.functional.latent_shift import top_units


def test_pruning_cuts_the_largest_units_and_nothing_else(suspect, tmp_path):
    stage = TACPruning(suspect, 2, share=0.1)
    tiny.trainer().predict(stage, datamodule=tiny.data(), return_predictions=False)
    units = top_units(solved(tiny.classifier(), tiny.data())[[2]], 0.1)
    before, after = tiny.classifier().final_linear.weight.data, stage.classifier.final_linear.weight.data
    assert len(units) == 3
    assert not after[:, units].any()
    left = [unit for unit in range(32) if unit not in units]
    assert torch.equal(after[:, left], before[:, left])
    assert stage.outcome().numbers == {"target_class": 2, "cut_units": units.tolist()}
    nothing = TACPruning(suspect, report(tmp_path / "found", []))
    tiny.trainer().predict(nothing, datamodule=tiny.data(), return_predictions=False)
    assert not tiny.moved(tiny.tensors(tiny.classifier()), tiny.tensors(nothing.classifier))
    assert nothing.outcome().numbers["target_class"] is None


def test_class_given_by_hand_does_not_depend_on_others_that_are_infeasible():
    stage = TACPruning(twins(), 0, share=0.1)
    tiny.trainer().predict(stage, datamodule=tiny.data(), return_predictions=False)
    assert len(stage.cut_units) == 3
    with pytest.raises(ValueError, match="send any latent to class 1.*the same as, or a mix of, those for 3"):
        tiny.trainer().predict(TACPruning(twins(), 1), datamodule=tiny.data(), return_predictions=False)


def test_units_that_nothing_changes_are_not_cut():
    assert top_units(torch.zeros(1, 32), 0.1).tolist() == []
    assert top_units(torch.eye(32)[[3, 3, 7]], 0.1).tolist() == [3, 7]


def test_pruning_refuses_weights_that_cannot_be_set(tmp_path):
    net = tiny.classifier()
    torch.nn.utils.parametrizations.weight_norm(net.net.fc)
    with pytest.raises(ValueError, match="'fc' with a parametrization. Take it off"):
        tiny.trainer().predict(TACPruning(net, 1), datamodule=tiny.data(), return_predictions=False)
