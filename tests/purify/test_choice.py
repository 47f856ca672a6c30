import pytest

from lit_backdoor.purify import choose
from lit_backdoor.purify.choice import find_class

NAMES = ("ape", "7", "cow")


def target(label, *detectors):
    return {"class": label, "detectors": list(detectors)}


@pytest.mark.parametrize(
    ("verdict", "targets", "expected"),
    [
        ("clean", [], (None, None)),
        ("clean", [target(1, "tac")], (None, None)),  # the verdict weighs all detectors
        ("backdoored", [target(2, "tac", "nc")], ("pgbd_stamps_anchored", 2)),
        ("suspicious", [target("cow", "tac", "nc"), target(0, "nc")], ("pgbd_stamps_anchored", 2)),
        ("suspicious", [target(2, "tac"), target(0, "nc")], ("pgbd_nt_stamps", None)),
        ("suspicious", [], ("pgbd_nt_stamps", None)),
    ],
)
def test_defense_fits_what_was_found(verdict, targets, expected):
    assert choose({"verdict": verdict, "targets": targets}, NAMES)[:2] == expected


def test_audit_without_a_verdict_decides_nothing():
    with pytest.raises(ValueError, match="Expected a verdict"):
        choose({"verdict": None, "targets": []}, NAMES)


def test_class_is_a_name_before_it_is_a_number():
    assert [find_class(given, NAMES) for given in ("cow", "7", "2", 0)] == [2, 1, 2, 0]
    for given in ("8", "-1", 3, "owl"):
        with pytest.raises(ValueError, match="from 0 to 2 or a name"):
            find_class(given, NAMES)
