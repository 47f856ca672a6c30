"""NAD: its loss, a toy that it cleans and one that it cannot."""

import pruning_parts as parts
import pytest
import tiny
import torch
from torch.nn import functional as F

from lit_backdoor.defenses.nad import NAD
from lit_backdoor.models.resolutions import last_of_each_size
from lit_backdoor.stages import FineTune


def sgd(parameters):
    return torch.optim.SGD(parameters, lr=0.003, momentum=0.9)


def test_loss_is_cross_entropy_and_the_distances_of_attention():
    stage = NAD(tiny.classifier(), tiny.classifier(seed=1), betas=(2.0, 3.0, 5.0))
    steps = tiny.recorded(stage)
    tiny.fit(stage, tiny.data(), limit_train_batches=1)
    student, teacher, batch = tiny.classifier().train(), tiny.classifier(seed=1).eval(), steps[0]["batch"]
    expected = F.cross_entropy(student(batch["image"]), batch["label"])
    student = tiny.classifier().train()
    for weight, layer in zip((2.0, 3.0, 5.0), ("layer2.1", "layer3.1", "layer4.1"), strict=True):
        maps = []
        for net in (student, teacher):
            outputs = net.taps(batch["image"], [layer])[layer].detach()
            for image in outputs:
                seen = (image**2).sum(0).flatten()
                maps.append(seen / seen.norm())
        own, taught = torch.stack(maps[: len(maps) // 2]), torch.stack(maps[len(maps) // 2 :])
        expected = expected + weight * ((own - taught) ** 2).mean()
    torch.testing.assert_close(steps[0]["loss"], expected.detach(), rtol=1e-4, atol=1e-5)


def test_layers_are_the_ends_of_the_groups():
    assert last_of_each_size(tiny.classifier())[-3:] == ["layer2.1", "layer3.1", "layer4.1"]


def test_toy_is_cleaned_where_the_teacher_looks_elsewhere():
    teacher = parts.backdoored()
    teacher.net[0].weight.data[1] = 0  # does not see color
    make = {"optimizer": sgd, "batch_norm": "eval"}
    stage = tiny.fit(NAD(parts.backdoored(), teacher, betas=(1000.0,), **make), parts.data(), max_epochs=80)
    assert parts.rates(stage.result(), parts.faint) == (1.0, 0.0)
    control = tiny.fit(FineTune(parts.backdoored(), **make), parts.data(), max_epochs=80)
    assert parts.rates(control.result(), parts.faint) == (1.0, 1.0)


def test_toy_stays_backdoored_where_the_teacher_is():
    make = {"optimizer": sgd, "batch_norm": "eval"}
    stage = tiny.fit(NAD(parts.backdoored(), parts.backdoored(), betas=(1000.0,), **make), parts.data(), max_epochs=80)
    assert parts.rates(stage.result(), parts.faint) == (1.0, 1.0)


def test_nothing_of_the_attack_reaches_it():
    assert parts.equal(*parts.without_attack(lambda: NAD(tiny.classifier(), tiny.classifier(seed=1))))


def test_resumed_run_equals_one_that_was_not_stopped(tmp_path):
    assert parts.equal(*parts.resumed(lambda: NAD(tiny.classifier(), tiny.classifier(seed=1)), tmp_path))


def test_bad_weights_are_refused():
    for betas in ((), (1.0, -1.0)):
        with pytest.raises(ValueError, match="Expected betas"):
            NAD(tiny.classifier(), tiny.classifier(), betas=betas)
