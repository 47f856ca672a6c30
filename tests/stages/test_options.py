"""An option that is none is refused where it is given, in Python as on the command line."""

import pytest
import tiny

from lit_backdoor.defenses.atclean import CollisionGenerator, DetectorFreeGenerator
from lit_backdoor.defenses.btidbf import BTIDBFUnlearning
from lit_backdoor.stages import FineTune, PoisonedTraining, UnlearningFineTune
from lit_backdoor.triggers import Attack, Patch


@pytest.mark.parametrize(
    ("make", "nearest"),
    [
        (lambda: PoisonedTraining(tiny.classifier(), schedule="cosin"), "cosine"),
        (lambda: FineTune(tiny.classifier(), schedule="one-cycle"), "one_cycle"),
        (lambda: CollisionGenerator(tiny.classifier(), schedule="cosin"), "cosine"),
        (lambda: CollisionGenerator(tiny.classifier(), distance="mmd2"), "mmd"),
        (lambda: DetectorFreeGenerator(tiny.classifier(), statistics="roots"), "root"),
        (lambda: UnlearningFineTune(tiny.classifier(), tiny.unet(), batch_norm="evaluate"), "eval"),
        (lambda: BTIDBFUnlearning(tiny.classifier(), batch_norm="evaluate"), "eval"),
        (lambda: Attack(Patch(), rate_of="targets"), "target"),
    ],
)
def test_unknown_option_is_refused_with_the_nearest(make, nearest):
    with pytest.raises(ValueError, match=f"Did you mean '{nearest}'"):
        make()
