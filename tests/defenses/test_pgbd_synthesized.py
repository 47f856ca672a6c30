"""ST-PGBD: vectors to where a trigger moves each class."""

import pytest
import tiny
import torch
from pgbd_parts import STATIC, fast, prototypes_of, run, targets

from lit_backdoor.defenses.pgbd import STPGBD, Geometry
from lit_backdoor.triggers import GeneratorTrigger, MaskedPattern, Patch


def test_synthesized_vectors_lead_to_triggered_prototypes(tmp_path):
    trigger = GeneratorTrigger(tiny.unet())
    stage = run(STPGBD(tiny.classifier(), targets(tmp_path / "t", [3, 1], trigger), geometry=STATIC), 1)
    moved = prototypes_of(tiny.classifier(), stage.space.layer, trigger.eval()) - stage.prototypes
    moved[3] = 0
    torch.testing.assert_close(stage.vectors[0], moved, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(stage.vectors[1], stage.prototypes[1] - stage.prototypes)
    assert stage.numbers()["target_class"] == 3


@pytest.mark.parametrize("make", [lambda: Patch(size=3, place=(1, 1), pattern="white"), tiny.unet])
def test_trigger_of_an_unknown_target_moves_all_classes(make):
    stage = run(STPGBD(tiny.classifier(), make(), geometry=STATIC), 1)
    assert stage.vectors[0].ne(0).any(1).all()
    assert stage.numbers() == {}
    named = run(STPGBD(tiny.classifier(), make(), target=1, geometry=STATIC), 1)
    assert named.vectors[0].ne(0).any(1).tolist() == [True, False, True, True]


def test_bundle_without_a_trigger_is_refused(tmp_path):
    with pytest.raises(ValueError, match="a report on target classes with a trigger"):
        run(STPGBD(tiny.classifier(), targets(tmp_path / "t", [3])))


@pytest.mark.parametrize("smoothed", ["prototypes", "vectors", "both"])
def test_trigger_that_does_nothing_has_no_vectors_however_the_net_went_on(smoothed):
    nothing = MaskedPattern(3, tiny.SIZE, tiny.SIZE)
    geometry = Geometry(update=1, alpha=[0.5], smoothed=smoothed)
    stage = run(STPGBD(tiny.classifier(), nothing, geometry=geometry, optimizer=fast), 3)
    assert not stage.vectors.any()
