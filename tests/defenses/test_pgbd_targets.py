"""Targets, triggers and suspects that do not belong together, and several of them."""

import numpy as np
import pytest
import tiny
import torch
from pgbd_parts import STATIC, fast, run, targets

from lit_backdoor.bundle import open_bundle, save_bundle
from lit_backdoor.data import BackdoorDataModule, Split, SyntheticSigns
from lit_backdoor.defenses.pgbd import NTPGBD, PGBD, STPGBD, Geometry, StampPGBD
from lit_backdoor.stages import FineTune
from lit_backdoor.triggers import OneOf, Patch


def other_signs(classes, size):
    source = SyntheticSigns(num_classes=classes, train_per_class=10, test_per_class=4, size=size)
    return BackdoorDataModule(source, Split(root_pool=12), None, batch_size=6, eval_batch_size=8)


@pytest.mark.slow
def test_each_flagged_class_has_the_vectors_of_its_own_trigger(tmp_path):
    first, second = Patch(size=3, place=(1, 1), pattern="white"), Patch(size=4, place=(9, 9), pattern="white")

    def vectors(name, flagged, trigger):
        stage = STPGBD(tiny.classifier(), targets(tmp_path / name, flagged, trigger), geometry=STATIC, optimizer=fast)
        return run(stage, 1).vectors

    both = vectors("both", [1, 2], OneOf([first, second]))
    torch.testing.assert_close(both[0], vectors("first", [1], first)[0])
    torch.testing.assert_close(both[1], vectors("second", [2], second)[0])


def test_candidates_without_a_number_have_no_turn(tmp_path):
    inf = float("inf")
    some = targets(tmp_path / "some", [1], statistic=(inf, 2.0, inf, 1.0))
    assert run(NTPGBD(tiny.classifier(), candidates=some, top=3), 1).turns == [3, 1]
    none = targets(tmp_path / "none", [], statistic=(inf,) * 4)
    with pytest.warns(UserWarning, match="no number on any class"):
        assert run(NTPGBD(tiny.classifier(), candidates=none, top=3), 1).turns == [0, 1, 2, 3]


@pytest.mark.parametrize("target", [np.int64(1), torch.tensor(1)])
def test_any_whole_number_names_a_class(target):
    assert run(PGBD(tiny.classifier(), target), 1).numbers()["target_class"] == 1


def test_none_is_what_a_detector_gives_that_flags_nothing():
    with pytest.raises(ValueError, match="got None, as where a detector flagged nothing"):
        run(PGBD(tiny.classifier(), None), 1)


def test_trigger_goes_to_the_class_it_was_inverted_for_in_whatever_order_another_detector_names_them(tmp_path):
    first, second = Patch(size=3, place=(1, 1), pattern="white"), Patch(size=4, place=(9, 9), pattern="white")
    inverted = targets(tmp_path / "inverted", [1, 2], OneOf([first, second]))
    other = targets(tmp_path / "other", [2, 3, 1])
    stage = STPGBD(tiny.classifier(), inverted, other, geometry=STATIC, optimizer=fast)
    vectors = run(stage, 1).vectors
    alone = STPGBD(tiny.classifier(), inverted, geometry=STATIC, optimizer=fast)
    expected = run(alone, 1).vectors
    torch.testing.assert_close(vectors[[2, 0]], expected)
    torch.testing.assert_close(
        vectors[1], run(PGBD(tiny.classifier(), 3, geometry=STATIC, optimizer=fast), 1).vectors[0]
    )


def test_no_target_is_taken_where_all_are_tried():
    with pytest.raises(ValueError, match="Expected no target for NTPGBD"):
        NTPGBD(tiny.classifier(), target=1)


def test_turns_that_do_not_fit_are_said():
    with pytest.warns(UserWarning, match="Turns of 4 classes take 8 epochs, but max_epochs is 3: only the first 2"):
        run(NTPGBD(tiny.classifier(), interval=2, optimizer=fast), 3)


@pytest.mark.parametrize("target", [True, 1.0])
def test_what_is_no_class_is_refused(target):
    with pytest.raises(ValueError, match="a class number or the path of a bundle"):
        run(PGBD(tiny.classifier(), target), 1)


def test_map_of_what_are_no_classes_is_refused():
    with pytest.raises(ValueError, match="Expected a map of 4 classes"):
        run(PGBD(tiny.classifier(), [0.5, 1, 2, 3]), 1)


def test_negative_weight_is_refused():
    with pytest.raises(ValueError, match="Expected weight to be 0 or more, got -1"):
        PGBD(tiny.classifier(), 0, weight=-1)


def test_report_on_other_classes_is_refused(tmp_path):
    with pytest.raises(ValueError, match="a report on 4 classes, got one on 5"):
        run(PGBD(tiny.classifier(), targets(tmp_path / "five", [1], statistic=(1.0,) * 5)), 1)


@pytest.mark.parametrize("make", [lambda net: PGBD(net, 0), FineTune])
def test_data_of_more_classes_than_the_suspect_knows(make):
    with pytest.raises(ValueError, match="a suspect for the data's 6 classes, got one for 4"):
        run(make(tiny.classifier()), 1, other_signs(6, tiny.SIZE))


def test_data_of_another_size_than_the_suspect_takes():
    with pytest.raises(ValueError, match="root images of the suspect's size, 16x16"):
        run(PGBD(tiny.classifier(), 0), 1, other_signs(4, 32))


def test_class_that_the_trigger_was_not_inverted_for_has_the_vectors_of_pgbd(tmp_path):
    inverted = targets(tmp_path / "inverted", [2], Patch(size=3, place=(1, 1), pattern="white"))
    with pytest.warns(UserWarning, match=r"inverted for other classes than \[3\]"):
        stage = run(STPGBD(tiny.classifier(), inverted, 3, geometry=STATIC, optimizer=fast), 1)
    torch.testing.assert_close(
        stage.vectors, run(PGBD(tiny.classifier(), 3, geometry=STATIC, optimizer=fast), 1).vectors
    )


def test_report_without_a_trigger_is_refused_where_one_is_needed(tmp_path):
    with pytest.raises(ValueError, match="a report on target classes with a trigger, such as Neural Cleanse"):
        run(STPGBD(tiny.classifier(), targets(tmp_path / "tac", [2])), 1)


def test_report_on_another_suspect_is_warned_of(tmp_path):
    own, other = (str(save_bundle(tmp_path / name, kind="suspect", module=tiny.classifier(seed)).path)
                  for seed, name in enumerate(("own", "other")))  # fmt: skip
    tensors = {"flagged": torch.tensor([1]), "statistic": torch.ones(4)}
    judged = {"suspect": {"hash": open_bundle(other).hash, "path": "../other"}}
    save_bundle(tmp_path / "r", kind="targets", tensors=tensors, numbers={"target_class": 1}, inputs=judged)
    with pytest.warns(UserWarning, match="was found on another suspect"):
        run(PGBD(own, str(tmp_path / "r")), 1)


@pytest.mark.parametrize("named", [[1], 1.7, True, "2"])
def test_class_in_a_bundle_is_a_whole_number(named, tmp_path):
    trigger = Patch(size=3, place=(1, 1))
    save_bundle(tmp_path / "t", kind="trigger", module=trigger, numbers={"target_class": named})
    with pytest.raises(ValueError, match="to name its target by a class number, got"):
        run(PGBD(tiny.classifier(), str(tmp_path / "t")), 1)


def test_map_may_be_a_tuple():
    assert run(PGBD(tiny.classifier(), (1, 2, 3, 0)), 1).numbers()["target_classes"] == [1, 2, 3, 0]


@pytest.mark.parametrize(("make", "message"), [
    (lambda net: Geometry(alpha=0.5), "geometry.alpha to be a list"),
    (lambda net: NTPGBD(net, interval=2.5), "whole numbers of at least 1, got 2.5"),
    (lambda net: StampPGBD(net, 1, search=True), r"search as StampSearch\(…\) or None, got True"),
    (lambda net: PGBD(net, 1, weight="6"), "weight to be 0 or more, got '6'"),
    (lambda net: PGBD(net, 1, weight=float("inf")), "weight to be 0 or more, got inf"),
    (lambda net: run(STPGBD(net, lambda images: images), 1), "trigger as a net or the path of a bundle, got a function"),
])  # fmt: skip
def test_options_of_another_type_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make(tiny.classifier())
