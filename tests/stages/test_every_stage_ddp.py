"""What holds for every stage in two processes; one pair runs them all. A new stage is found by being there."""

import re
import warnings

import pytest
import tiny
import torch
from ddp_parts import as_rank, free_port
from walk_parts import STAGES, data, epochs, made, trial_data

from lit_backdoor.bundle import open_bundle
from lit_backdoor.stages import AttackTraining, Evaluation, Phased

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def numbers(name, selection, bundle, **options):
    """Test a stage's bundle; gives its numbers."""
    datamodule = trial_data(name, selection, bundle)
    found = tiny.trainer(**options).test(Evaluation(str(bundle)), datamodule, verbose=False)
    return {key: value for result in found for key, value in result.items()}


def run(name, victim, selection, folder, strategy):
    """Run a stage, two steps an epoch, and test the bundle that it exports; gives the bundle's numbers."""
    own = folder / f"{strategy}-{torch.distributed.get_rank()}"
    own.mkdir(parents=True)
    stage, options = made(name, victim, own), {"devices": 2, "strategy": strategy}
    trainer = tiny.trainer(limit_val_batches=0, limit_train_batches=2, max_epochs=epochs(stage), **options)
    if stage.verb == "fit":
        trainer.fit(stage, data(name, selection, batch_size=6))
    else:
        trainer.predict(stage, data(name, selection), return_predictions=False)
    stage.export(folder / "bundle")
    return numbers(name, selection, folder / "bundle", **options)


def walk(rank, world_size, victim, selection, folder, port):
    """Run every stage under plain DDP, or under the strategy that its refusal names; gives numbers and refusals."""
    found, refused = {}, {}
    warnings.simplefilter("ignore")
    with as_rank(rank, world_size, port):
        for name in STAGES:
            strategy = "ddp"
            while name not in found:
                try:
                    found[name] = run(name, victim, selection, folder / name, strategy)
                except Exception as error:
                    remedy = re.search(r"--trainer\.strategy (\w+)", str(error))
                    if remedy and name not in refused:
                        refused[name], strategy = str(error), remedy[1]
                    else:
                        found[name] = f"{type(error).__name__}: {error}"
    return found, refused


@pytest.fixture(scope="module")
def two(victim, selection, tmp_path_factory, run_ddp):
    folder = tmp_path_factory.mktemp("two")
    return folder, *run_ddp(walk, victim, selection, folder, free_port(), timeout=800)


@pytest.mark.parametrize("name", STAGES)
def test_stage_runs_in_two_processes_and_its_bundle_is_tested_in_one(name, two, selection):
    folder, (first, _), (second, _) = two
    assert isinstance(first[name], dict), first[name]
    assert second[name] == pytest.approx(first[name], nan_ok=True, abs=0)
    bundle = open_bundle(folder / name / "bundle", STAGES[name].kind)
    one = numbers(name, selection, bundle.path)
    assert one.keys() == first[name].keys()
    assert first[name] == pytest.approx(one, nan_ok=True, abs=1e-6, rel=1e-6)


def test_only_stages_that_train_nets_in_turn_refuse_plain_ddp(two):
    _, (_, refused), (_, other) = two
    warnings.warn(f"{len(refused)} of {len(STAGES)} stages refuse plain DDP: {', '.join(refused)}", stacklevel=1)
    assert refused == other
    assert all(issubclass(STAGES[name], Phased | AttackTraining) for name in refused)
