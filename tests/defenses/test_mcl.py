"""MCL: its loss, a trigger by which it removes the backdoor and one by which it cannot."""

import pytest
import tiny
import torch
from repair_parts import changed_by_the_attack, first_step, measured, repaired, trained
from torch.nn import functional as F

from lit_backdoor.bundle import open_bundle
from lit_backdoor.defenses.mcl import ModelContrast
from lit_backdoor.functional.contrast import model_contrast
from lit_backdoor.models.latents import latents_and_logits
from lit_backdoor.triggers import MaskedPattern


def patch(strength=1.0):
    mask = torch.zeros(1, 16, 16)
    mask[:, 1:4, 1:4] = strength
    return MaskedPattern.holding(mask, torch.ones(3, 16, 16))


def faster(parameters):
    return torch.optim.Adam(parameters, lr=1e-3)


def test_first_step_is_the_loss_as_written(suspect):
    stage = ModelContrast(suspect, patch(), weight=0.5, temperature=0.3, batch_norm="eval")
    grads, _, batch = first_step(stage, tiny.data())
    net, given, images = tiny.classifier().eval(), tiny.classifier().eval(), batch["image"]
    triggered = images.clone()
    triggered[:, :, 1:4, 1:4] = 1
    own = latents_and_logits(net, triggered)[0]
    clean, bad = (latents_and_logits(given, x)[0].detach() for x in (images, triggered))
    loss = 0.5 * F.cross_entropy(net(images), batch["label"]) + model_contrast(own, clean, bad, 0.3)
    loss.backward()
    for name, weight in net.named_parameters():
        torch.testing.assert_close(grads[name], weight.grad, rtol=1e-3, atol=1e-5)


def test_it_removes_a_backdoor_by_its_trigger_and_keeps_it_by_one_that_does_nothing():
    assert measured(open_bundle(trained()).build())[1] > 0.8
    cleaned, kept = (
        measured(repaired(ModelContrast(trained(), trigger, optimizer=faster, batch_norm="eval"), epochs=15).result())
        for trigger in (patch(), patch(0.0))
    )
    assert min(cleaned[0], kept[0]) > 0.8
    assert cleaned[1] < 0.4
    assert kept[1] > 0.8


def test_nothing_of_the_attack_reaches_it(suspect):
    assert not changed_by_the_attack(lambda: ModelContrast(suspect, patch()))


@pytest.mark.parametrize("options", [{"weight": -1.0}, {"temperature": 0.0}])
def test_numbers_out_of_range_are_refused(options):
    with pytest.raises(ValueError, match="Expected weight of 0 or more and temperature above 0"):
        ModelContrast("path", patch(), **options)
