"""Baselines that train, in two processes: both have the same weights, and one bundle is left."""

import pytest
import tiny
import torch
from ddp_parts import as_rank, free_port

from lit_backdoor.defenses.abl import ABLIsolation
from lit_backdoor.defenses.anp import ANP
from lit_backdoor.defenses.fp import FPFineTune
from lit_backdoor.defenses.nad import NAD
from lit_backdoor.defenses.rnp import RNPRecovery, RNPUnlearning
from lit_backdoor.stages import Evaluation

STAGES = {
    "ANP": lambda: ANP(tiny.classifier()),
    "NAD": lambda: NAD(tiny.classifier(), tiny.classifier(seed=1)),
    "FPFineTune": lambda: FPFineTune(tiny.classifier()),
    "RNPUnlearning": lambda: RNPUnlearning(tiny.classifier(), floor=0.01),
    "RNPRecovery": lambda: RNPRecovery(tiny.classifier(), tiny.classifier(seed=1)),
    "ABLIsolation": lambda: ABLIsolation(tiny.classifier()),
}


def in_two(rank, world_size, folder, port):
    kept = {}
    with as_rank(rank, world_size, port):
        for name, make in STAGES.items():
            data = tiny.data(tiny.attack(), batch_size=6)
            stage = tiny.fit(make(), data, max_epochs=2, strategy="ddp", devices=world_size)
            stage.export(f"{folder}/{name}")
            kept[name] = {key: weight.detach().clone() for key, weight in stage.named_parameters()}
    return kept


@pytest.fixture(scope="module")
def two(run_ddp, tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundles")
    return folder, run_ddp(in_two, str(folder), free_port())


@pytest.mark.slow
@pytest.mark.parametrize("name", STAGES)
def test_both_processes_have_the_same_weights_and_one_bundle_is_left(name, two):
    folder, ranks = two
    first, second = (rank[name] for rank in ranks)
    assert first.keys() == second.keys()
    assert not [key for key in first if not torch.equal(first[key], second[key])]
    result = tiny.tested(Evaluation(str(folder / name)), tiny.data(tiny.attack()))
    assert {"test/acc", "test/asr", "test/ra"} <= result.keys()
