"""Grids whose driver or worker is killed, and two of them at once on one store."""

import contextlib
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from grid_parts import gone, write_grid

from lit_backdoor.bundle import open_bundle
from lit_backdoor.chain.grid import command

sys.path.append(str(Path(__file__).parents[1]))
import moments  # found by its bare name in child processes too

MOMENTS = [  # of a driver in whose process the commands run
    ("lit_backdoor.stages.poisoned_training.PoisonedTraining.training_step", 3),
    ("lit_backdoor.chain.store.copy_whole", 1),  # the victim is made, but not yet in the store
    ("lit_backdoor.bundle.place", 1),
]


@pytest.fixture(autouse=True)
def undone(monkeypatch):
    """What `moments.grid` changes in this process is as before afterwards."""
    monkeypatch.setattr(command, "_engine", command._engine)
    monkeypatch.setenv("LIT_BACKDOOR_CACHE", "")


@pytest.fixture(scope="module")
def processes():
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["lit_backdoor.chain.run", "lit_backdoor.lightning_cli"])
    return context


def small(folder):
    defense = str(folder / "tune0.yaml"), str(folder / "tune1.yaml")
    return write_grid(folder, attacks=["badnets_3x3"], defenses=list(defense), seeds=[0])


def wait_for(folder, pattern, seconds=300):
    deadline = time.monotonic() + seconds
    while not (found := list(folder.glob(pattern))):
        assert time.monotonic() < deadline, f"no {pattern}"
        time.sleep(0.05)
    return found[0]


def hashes(out):
    """The hashes of all stages' bundles, cell by cell."""
    files = sorted((out / "cells").glob("*/results.json"))
    return [[stage["hash"] for stage in json.loads(file.read_text())["stages"]] for file in files]


def logged(*outs):
    return "".join(log.read_text() for out in outs for log in sorted((out / "logs").iterdir()))


def whole(folder):
    """Open every bundle of a folder; nothing half written is beside them."""
    assert not [path for path in folder.rglob("*") if path.suffix in (".part", ".old")]
    return [open_bundle(file.parent) for file in folder.rglob("bundle.json")]


@pytest.mark.slow
def test_two_drivers_at_once_on_one_store_train_one_victim(processes, tmp_path):
    file, one, two = small(tmp_path), tmp_path / "one", tmp_path / "two"
    store = str(tmp_path / "store")
    first = processes.Process(target=moments.grid, args=(file, str(one), store, None, 1, str(two)))
    second = processes.Process(target=moments.grid, args=(file, str(two), store))
    first.start()
    wait_for(one, "stages/*/.runs/victim/key")
    second.start()
    first.join(300), second.join(300)
    assert (first.exitcode, second.exitcode) == (0, 0)
    assert logged(one, two).count("victim: ran") == 1
    assert hashes(one) == hashes(two)
    assert len(whole(tmp_path / "store")) == 3


@pytest.mark.slow
def test_driver_that_is_killed_goes_on(processes, tmp_path):
    file, out, store = small(tmp_path), tmp_path / "out", tmp_path / "store"
    for moment, number in MOMENTS:
        child = processes.Process(target=moments.grid, args=(file, str(out), str(store), moment, number))
        child.start()
        child.join(300)
        assert child.exitcode == -signal.SIGKILL, f"not killed at {moment}"
    moments.grid(file, str(out), str(store))
    moments.grid(file, str(tmp_path / "straight"), str(tmp_path / "other"))
    assert hashes(out) == hashes(tmp_path / "straight")
    assert [json.loads(line)["status"] for line in (out / "rows.jsonl").read_text().splitlines()] == ["done", "done"]
    whole(out), whole(store)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["inline", "ray"])
@pytest.mark.parametrize("whom", ["driver", "worker"])
def test_grid_whose_process_is_killed_goes_on_from_the_last_epoch(tmp_path, whom, engine):
    if engine == "ray":
        pytest.importorskip("ray")
    file, out = small(tmp_path), tmp_path / "out"
    (tmp_path / "mini.yaml").write_text((tmp_path / "mini.yaml").read_text().replace("max_epochs: 1", "max_epochs: 40"))
    env = {**os.environ, "LIT_BACKDOOR_CACHE": str(tmp_path / "store")}
    words = [sys.executable, "-W", "ignore", "-m", "lit_backdoor", "grid", file, "--out", str(out), "--engine", engine]
    driver = subprocess.Popen(words, cwd=tmp_path, env=env, stdout=subprocess.DEVNULL)
    wait_for(out, "stages/*/.runs/victim/checkpoints/*.ckpt")
    [worker] = running(f"--out\0{out}/stages/")
    os.kill(driver.pid if whom == "driver" else worker, signal.SIGKILL)
    assert driver.wait(600) == (-signal.SIGKILL if whom == "driver" else 0)
    if whom == "driver":
        assert gone(worker, 40)
        subprocess.run(words, cwd=tmp_path, env=env, check=True, stdout=subprocess.DEVNULL)
    assert "victim: resumed" in logged(out)
    moments.grid(file, str(tmp_path / "straight"), str(tmp_path / "other"))
    assert hashes(out) == hashes(tmp_path / "straight")
    whole(out), whole(tmp_path / "store")


def running(words):
    """The processes whose command line has these words."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if words in file.read_text():
                found.append(int(file.parent.name))
    return found
