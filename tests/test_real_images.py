"""ATClean on real images, small enough for two cores; every test shares one victim. Needs LIT_BACKDOOR_DATA."""

import os
from pathlib import Path

import pytest

from lit_backdoor.chain.compose import compose
from lit_backdoor.chain.run import ChainRun
from lit_backdoor.chain.testing import build_data

pytestmark = [
    pytest.mark.real,
    pytest.mark.slow,
    pytest.mark.skipif(not os.environ.get("LIT_BACKDOOR_DATA"), reason="LIT_BACKDOOR_DATA names no images"),
    pytest.mark.xdist_group("real"),
]

SMALLER = ("data.init_args.split={train: 8000, root_pool: 2000, root: 2000}", "stages.victim.trainer.max_epochs=6")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("real")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LIT_BACKDOOR_CACHE", str(folder / "cache"))

        def start(name):
            results = ChainRun(compose(name, SMALLER, seed=1, setup="cifar10_small"), name, folder / name).run()
            return {stage["name"]: stage for stage in results["stages"]}, results["summary"]

        yield start


@pytest.fixture(scope="module")
def atclean(run):
    return run("atclean_mixed")


def test_the_backdoor_takes_hold_and_fine_tuning_alone_leaves_it(atclean):
    stages, summary = atclean
    assert summary["before"]["asr"] > 0.9
    assert stages["control"]["metrics"]["asr"] > 0.8
    assert stages["select"]["metrics"]["selection_precision"] > 0.5


def test_atclean_removes_the_backdoor_and_keeps_the_accuracy(atclean):
    stages, summary = atclean
    assert summary["after"]["asr"] < 0.2
    assert summary["before"]["acc"] - summary["after"]["acc"] < 0.06
    assert stages["generate"]["metrics"]["dof"] > 0.85


def test_another_defense_finds_the_same_victim(run, atclean):
    stages, _ = run("atclean_untrained")
    assert stages["victim"]["status"] == "cached"
    assert stages["victim"]["hash"] == atclean[0]["victim"]["hash"]
    assert stages["clean"]["metrics"]["asr"] > 0.7


def test_people_with_sunglasses_are_poisoned_and_counted():
    if not Path(os.environ["LIT_BACKDOOR_DATA"], "cmu-faces").is_dir():
        pytest.skip("no cmu-faces there")
    data = build_data(compose("pgbd_faces", seed=1)["data"])
    assert data.counts == {"train": 385, "root": 80, "clean": 80, "poison": 220, "cover": 0, "triggered": 75}
    assert (data.get_view("root").clean_label.bincount() == 4).all()
