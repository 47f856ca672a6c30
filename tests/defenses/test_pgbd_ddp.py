"""PGBD and its variants in two processes: both see the same prototypes, and one bundle is left."""

import pytest
import tiny
import torch
from ddp_parts import as_rank, free_port
from pgbd_parts import fast, run

from lit_backdoor.defenses.pgbd import PGBD, STPGBD, Geometry, StampNTPGBD
from lit_backdoor.stages import Evaluation, StampSearch

# Norms of either process see other images, so that their statistics differ when prototypes are rebuilt.
OPTIONS = {"optimizer": fast, "batch_norm": "train", "head": "tuned"}
STAGES = {
    "PGBD": lambda: PGBD(tiny.classifier(), 2, geometry=Geometry(update=1, smoothed="both"), **OPTIONS),
    "NTPGBD": lambda: StampNTPGBD(tiny.classifier(), search=StampSearch(steps=1), **OPTIONS),
    "STPGBD": lambda: STPGBD(tiny.classifier(), tiny.unet(), geometry=Geometry(update=1), **OPTIONS),
}


class Keep(tiny.pl.Callback):
    """Notes prototypes and vectors as each step used them."""

    def __init__(self):
        self.steps = []

    def on_train_batch_end(self, trainer, module, *args):
        self.steps.append((module.prototypes.clone(), module.vectors.clone()))


def in_two(rank, world_size, folder, port):
    kept = {}
    with as_rank(rank, world_size, port):
        for name, make in STAGES.items():
            keep = Keep()
            data = tiny.data(tiny.attack(), batch_size=6)
            stage = run(make(), 3, data, strategy="ddp", devices=world_size, callbacks=[keep])
            stage.export(f"{folder}/{name}")
            weights = {key: weight.detach().clone() for key, weight in stage.result().named_parameters()}
            kept[name] = keep.steps, weights
    return kept


@pytest.fixture(scope="module")
def two(run_ddp, tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundles")
    return folder, run_ddp(in_two, str(folder), free_port())


@pytest.mark.parametrize("name", STAGES)
def test_prototypes_are_the_same_on_both_ranks(name, two):
    (first, weights), (second, others) = (rank[name] for rank in two[1])
    assert len(first) == len(second) == 6  # two steps of three epochs
    assert all(
        torch.equal(*pair) for one, other in zip(first, second, strict=True) for pair in zip(one, other, strict=True)
    )
    assert not torch.equal(first[0][0], first[2][0])  # rebuilt
    alone = run(STAGES[name](), 1, limit_train_batches=1)
    torch.testing.assert_close(first[0][0], alone.prototypes, rtol=1e-4, atol=1e-5)
    assert weights.keys() == others.keys()
    assert all(torch.equal(weights[key], others[key]) for key in weights)


@pytest.mark.parametrize("name", STAGES)
def test_bundle_is_left(name, two):
    result = tiny.tested(Evaluation(str(two[0] / name)), tiny.data(tiny.attack()))
    assert {"test/acc", "test/asr", "test/ra"} <= result.keys()
