import pytest

from lit_backdoor.audit.detectors import DETECTORS, Finding, confirm
from lit_backdoor.audit.verdict import decide, targets_of


def findings(*flagged):
    return [Finding(each, "ran", score=1.0, flagged=f) for each, f in zip(DETECTORS, flagged, strict=False)]


@pytest.mark.parametrize(
    ("flagged", "verdict"),
    [
        (((), ()), "clean"),
        (((1,), ()), "suspicious"),
        (((1,), (2,)), "suspicious"),
        (((1,), (2, 1)), "backdoored"),
        (((1,), (1,), ()), "backdoored"),
    ],
)
def test_detectors_decide_where_there_is_no_probability(flagged, verdict):
    assert decide(findings(*flagged), None) == verdict


@pytest.mark.parametrize(
    ("flagged", "probability", "verdict"),
    [
        (((), ()), 0.2, "clean"),
        (((1,), ()), 0.2, "clean"),
        (((), (1,)), 0.2, "suspicious"),
        (((1,), (1,)), 0.2, "suspicious"),
        (((1,), (1,)), 0.5, "backdoored"),
        (((), ()), 0.5, "suspicious"),
        (((1,), (1,)), 0.9, "backdoored"),
    ],
)
def test_probability_decides_where_there_is_one(flagged, probability, verdict):
    assert decide(findings(*flagged), probability, [DETECTORS[0].name]) == verdict


def test_nothing_is_said_where_nothing_ran():
    failed = [Finding(each, "failed", reason="x") for each in DETECTORS]
    assert decide(failed, None) is None


def test_detectors_that_could_not_compare_classes_do_not_call_a_model_clean():
    few, inverted = findings((), ())
    few.score, few.statistics = None, (1.0, float("inf"), 2.0)
    assert decide([few, inverted], None) is None  # an inverted trigger only confirms what another detector flags
    few.score = 0.1
    assert decide([few, inverted], None) == "clean"


def test_failed_detectors_do_not_count():
    mixed = [*findings(()), Finding(DETECTORS[1], "failed", flagged=(1,))]
    assert decide(mixed, None) == "clean"


def test_targets_come_with_the_detectors_that_flag_them():
    assert targets_of(findings((2,), (1, 2), ()), "abc") == [
        {"class": 2, "name": "c", "detectors": [DETECTORS[0].name, DETECTORS[1].name]},
        {"class": 1, "name": "b", "detectors": [DETECTORS[1].name]},
    ]


@pytest.mark.parametrize(
    ("flagged", "share", "likely", "confirmed"),
    [
        ((2,), 0.95, (), (2,)),
        ((2,), 0.5, (), ()),
        ((1,), 0.95, (), ()),
        ((), 1.0, (), ()),
        ((), 0.95, ("btidbf",), (2,)),
        ((), 0.5, ("btidbf",), ()),
        ((), 0.95, ("tac",), ()),
    ],
)
def test_inverted_trigger_confirms_what_another_detector_flags_or_is_likely(flagged, share, likely, confirmed):
    found = findings(flagged, ())
    found[1].top, found[1].statistics = 2, (0.0, 0.05, share)
    confirm(found, likely)
    assert found[1].flagged == confirmed
