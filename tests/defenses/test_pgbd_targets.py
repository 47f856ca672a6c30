"""Targets, triggers and suspects that do not belong together, and several of them."""

import numpy as np
import pytest
import tiny
import torch
from pgbd_parts import STATIC, fast, run, targets

from lit_backdoor.data import BackdoorDataModule, Split, SyntheticSigns
from lit_backdoor.defenses.pgbd import NTPGBD, PGBD, STPGBD
from lit_backdoor.stages import FineTune
from lit_backdoor.triggers import OneOf, Patch


def other_signs(classes, size):
    source = SyntheticSigns(num_classes=classes, train_per_class=10, test_per_class=4, size=size)
    return BackdoorDataModule(source, Split(root_pool=12), None, batch_size=6, eval_batch_size=8)


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
