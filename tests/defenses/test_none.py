"""NONE: what it resets and removes, a toy that it cleans and one that it cannot."""

import pruning_parts as parts
import pytest
import scratch_parts
import tiny
import torch
from torch.nn import functional as F

from lit_backdoor.defenses.none import NeuronReset


def run(trigger, **options):
    given = {"share": 0.4, "optimizer": scratch_parts.still, **options}
    return tiny.fit(NeuronReset(parts.backdoored(), **given), scratch_parts.questioned(trigger))


def test_channel_of_the_trigger_is_reset_and_its_rows_removed():
    stage = run(parts.redden)
    assert stage.removed.nonzero().flatten().tolist() == scratch_parts.POISONED
    assert stage.numbers() == {"removed_rows": len(scratch_parts.POISONED)}
    net, before = stage.result().net, parts.backdoored().net
    assert not net[0].weight[1].any()
    assert not net[1].weight[1].any()
    assert not net[1].bias[1].any()
    assert torch.equal(net[0].weight[0], before[0].weight[0])
    assert parts.rates(stage.result()) == (1.0, 0.0)


def test_loss_is_the_cross_entropy_of_the_rows_that_are_left():
    stage = NeuronReset(parts.backdoored(), share=0.4, optimizer=scratch_parts.still)
    steps = tiny.recorded(stage)
    tiny.fit(stage, scratch_parts.questioned(parts.redden), limit_train_batches=1)
    batch, net = steps[0]["batch"], stage.result().eval()
    kept = torch.tensor([int(row) not in scratch_parts.POISONED for row in batch["index"]])
    assert 0 < kept.sum() < len(kept)
    expected = F.cross_entropy(net(batch["image"][kept]), batch["label"][kept])
    torch.testing.assert_close(steps[0]["loss"], expected.detach())


def test_rows_are_not_told_apart_where_the_trigger_is_what_clean_rows_have():
    removed = set(run(parts.brighten).removed.nonzero().flatten().tolist())
    assert len(removed & set(scratch_parts.POISONED)) < 0.4 * max(1, len(removed))


def test_flags_and_target_do_not_reach_it():
    assert not scratch_parts.differs_without_flags(lambda: NeuronReset(tiny.classifier()))


@pytest.mark.parametrize("options", [{"share": 0.0}, {"low": 0.0}, {"high": 1.0}, {"round_epochs": 0}])
def test_numbers_out_of_range_are_refused(options):
    with pytest.raises(ValueError, match=f"Expected {next(iter(options))}"):
        NeuronReset("path", **options)
