"""FT-SAM."""

import pytest
import tiny
import torch
from repair_parts import changed_by_the_attack, first_step
from torch.nn import functional as F

from lit_backdoor.defenses.ft_sam import SAMFineTune


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_first_step_is_the_gradient_at_the_changed_weights(mode, suspect):
    grads, logged, batch = first_step(SAMFineTune(suspect, radius=0.5, batch_norm=mode), tiny.data())
    net, images, labels = tiny.classifier().train(mode == "train"), batch["image"], batch["label"]

    def loss():
        return F.cross_entropy(net(images), labels, label_smoothing=0.1)

    plain = loss()
    plain.backward()
    weights = list(net.parameters())
    flat = torch.cat([(w.abs() * w.grad).flatten() for w in weights])
    with torch.no_grad():
        for weight in weights:
            weight += 0.5 * weight**2 * weight.grad / flat.norm()
    net.zero_grad()
    loss().backward()
    assert float(logged["plain_loss"]) == pytest.approx(plain.item(), rel=1e-5)
    for name, weight in net.named_parameters():
        torch.testing.assert_close(grads[name], weight.grad, rtol=1e-3, atol=1e-5)


def test_running_statistics_are_updated_once_a_step(suspect):
    stage = tiny.fit(SAMFineTune(suspect), tiny.data(), max_steps=1)
    counts = [norm.num_batches_tracked for norm in stage.classifier.modules() if hasattr(norm, "num_batches_tracked")]
    assert {int(count) for count in counts} == {1}


def test_nothing_of_the_attack_reaches_it(suspect):
    assert not changed_by_the_attack(lambda: SAMFineTune(suspect))


@pytest.mark.parametrize("options", [{"radius": 0.0}, {"smoothing": 1.0}])
def test_numbers_out_of_range_are_refused(options):
    with pytest.raises(ValueError, match=f"Expected {next(iter(options))}"):
        SAMFineTune("path", **options)
