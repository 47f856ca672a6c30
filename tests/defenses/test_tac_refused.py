"""What TAC's stages refuse: settings, suspects, perturbations."""

import pytest
import tiny
import torch
from tac_parts import detected, report

from lit_backdoor.bundle import open_bundle, save_bundle
from lit_backdoor.defenses.tac import Program, TACDetection, TACFineTune, TACPruning, TACStampFineTune


@pytest.mark.parametrize("make", [TACDetection, lambda s: TACFineTune(s, 0), lambda s: TACPruning(s, 0)])
def test_suspect_without_a_final_linear_layer_is_refused(make):
    classifier = tiny.classifier()
    classifier.num_classes = 5  # no layer has as many outputs
    with pytest.raises(ValueError, match="linear layer with 5 outputs, got none"):
        make(classifier).configure_model()


@pytest.mark.parametrize("bad", [{"margin": -1.0}, {"quantile": 0.0}, {"quantile": 1.1}, {"slack": 0.0}])
def test_program_out_of_range_is_refused(bad):
    with pytest.raises(ValueError, match=f"program.{next(iter(bad))}"):
        Program(**bad)


def test_options_out_of_range_are_refused(suspect):
    with pytest.raises(ValueError, match="beta to be 0 or more"):
        TACFineTune(suspect, 0, beta=-1.0)
    with pytest.raises(ValueError, match="level of the test"):
        TACDetection(suspect, level=0.0)
    with pytest.raises(ValueError, match="share of units"):
        TACPruning(suspect, 0, share=1.0)
    with pytest.raises(ValueError, match="from 0 to 3, got 7"):
        TACFineTune(suspect, 7).configure_model()


@pytest.mark.parametrize("make", [lambda nan: Program(margin=nan), lambda nan: TACFineTune("x", 0, beta=nan),
                                  lambda nan: TACStampFineTune("x", 0, movement=nan)])  # fmt: skip
def test_what_is_no_number_is_refused(make):
    with pytest.raises(ValueError, match="0 or more, got nan"):
        make(float("nan"))


def test_settings_are_objects_of_their_class(suspect):
    with pytest.raises(ValueError, match=r"Expected program as Program\(…\) or None, got \{'margin': 1\}"):
        TACDetection(suspect, {"margin": 1})


def test_perturbations_of_another_suspect_are_refused(tmp_path):
    path = report(tmp_path / "found", [1])
    with pytest.raises(ValueError, match=r"perturbations \[4, 64\] .* got \[4, 32\]"):
        TACFineTune(tiny.classifier(channels=8), path).configure_model()


def test_perturbations_found_on_another_suspect_are_refused(suspect, tmp_path):
    found = detected(TACDetection(suspect), tmp_path / "found")
    other = save_bundle(tmp_path / "other", kind="suspect", module=tiny.classifier(seed=1)).path
    for make in (TACFineTune, TACPruning):
        with pytest.raises(ValueError, match="got those of another one"):
            tiny.trainer().validate(make(str(other), found), datamodule=tiny.data(tiny.attack()))


def test_perturbations_that_are_not_finite_are_refused(suspect, tmp_path):
    given = report(tmp_path / "r", [1])
    bundle = open_bundle(given)
    tensors = {**bundle.tensors(), "perturbations": torch.full((4, 32), torch.nan)}
    save_bundle(given, kind="targets", tensors=tensors, numbers=bundle.numbers)
    with pytest.raises(ValueError, match="finite perturbations"):
        tiny.fit(TACFineTune(suspect, given), tiny.data())
