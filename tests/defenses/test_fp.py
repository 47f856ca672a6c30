"""Fine-pruning: its ranking, its end, a toy that it cleans and one that it cannot."""

import pruning_parts as parts
import pytest
import tiny
import torch

from lit_backdoor.defenses.fp import FPFineTune, FPPruning
from lit_backdoor.models.latents import latents_and_logits


def pruned(stage, datamodule=None):
    tiny.trainer().predict(stage, datamodule=datamodule or tiny.data(), return_predictions=False)
    return stage


def test_silent_units_go_first_and_as_many_as_the_root_accuracy_allows():
    stage = pruned(FPPruning(tiny.classifier(), tolerance=0.3))
    net, datamodule = tiny.classifier().eval(), tiny.data()
    datamodule.setup()
    batches = [datamodule.images(batch) for batch in datamodule.loader("root", shuffle=False)]
    images, labels = (torch.cat([batch[key][batch["valid"]] for batch in batches]) for key in ("image", "label"))
    order = latents_and_logits(net, images)[0].mean(0).argsort(stable=True).tolist()
    assert stage.cut_units == order[: len(stage.cut_units)]

    def accuracy(units):
        other = tiny.classifier().eval()
        other.final_linear.weight.data[:, units] = 0
        return float((other(images).argmax(1) == labels).float().mean())

    least = 0.7 * accuracy([])
    assert all(accuracy(order[:count]) >= least for count in range(len(stage.cut_units) + 1))
    if len(stage.cut_units) < len(order):
        assert accuracy(order[: len(stage.cut_units) + 1]) < least


def test_toy_is_cleaned_where_the_backdoor_is_silent_on_clean_images():
    stage = pruned(FPPruning(parts.backdoored()), parts.data())
    assert stage.outcome().numbers == {"cut_units": [1]}
    assert parts.rates(stage.result()) == (1.0, 0.0)


def test_toy_stays_backdoored_where_the_trigger_is_what_a_class_has():
    stage = pruned(FPPruning(parts.backdoored()), parts.data())
    assert parts.rates(stage.result(), parts.brighten) == (1.0, 1.0)


def test_pruned_units_stay_pruned_while_the_others_are_tuned():
    net = tiny.classifier()
    net.final_linear.weight.data[:, [3, 7]] = 0
    stage = tiny.fit(FPFineTune(net, schedule="cosine"), tiny.data(), max_epochs=2)
    columns = stage.result().final_linear.weight.any(0)
    assert (~columns).nonzero().flatten().tolist() == [3, 7]
    assert "net.fc.weight" in tiny.moved(tiny.tensors(net), tiny.tensors(stage.result()))


def test_nothing_of_the_attack_reaches_it():
    assert parts.equal(*parts.without_attack(lambda: FPPruning(tiny.classifier()), fit=False))
    assert parts.equal(*parts.without_attack(lambda: FPFineTune(tiny.classifier())))


def test_resumed_run_equals_one_that_was_not_stopped(tmp_path):
    assert parts.equal(*parts.resumed(lambda: FPFineTune(tiny.classifier()), tmp_path))


def test_bad_tolerance_is_refused():
    with pytest.raises(ValueError, match=r"in \(0, 1\), got 1"):
        FPPruning(tiny.classifier(), tolerance=1)
