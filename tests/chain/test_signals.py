"""A chain that a signal ends: at a batch, with its checkpoint, in time, with nothing left running and the lock free."""

import fcntl
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tiny
from cli_parts import POISONED, written

ROOT = Path(__file__).resolve().parents[2]
LONG = ["stages.victim.trainer.max_epochs=500"]
TWO = ["trainer.devices=2", "trainer.strategy=ddp"]
WORKERS = ["data.init_args.num_workers=2"]


def started(arguments, folder):
    """Start a command in a process group of its own; what it says goes to a file."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "LIT_BACKDOOR_CACHE": str(folder / "cache"),
                   "OMP_NUM_THREADS": "1"}  # other tests run beside  # fmt: skip
    with (folder / "said").open("w") as said:
        return subprocess.Popen([sys.executable, "-W", "ignore", "-m", "lit_backdoor", *arguments], cwd=folder,
                                stderr=said, stdout=said, env=environment, start_new_session=True)  # fmt: skip


def running(folder):
    """Processes, of whatever group, that a command started in this folder and that still run."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "cwd").resolve() == folder and b"lit_backdoor" in (process / "cmdline").read_bytes():
                found.append(process.name)
        except OSError:
            continue
    return found


def wait_for(pattern, folder, process, seconds=300):
    deadline = time.monotonic() + seconds
    while not list(folder.glob(pattern)):
        assert process.poll() is None, (folder / "said").read_text()
        assert time.monotonic() < deadline, f"no {pattern}: {(folder / 'said').read_text()}"
        time.sleep(0.05)


def stop(process, number, whom):
    """Send a signal and give the seconds until the process ended."""
    since = time.monotonic()
    (os.killpg if whom == "group" else os.kill)(process.pid, number)
    process.wait(40)
    return time.monotonic() - since


@pytest.fixture
def folder(tmp_path):
    return tmp_path.resolve()


@pytest.mark.parametrize(
    ("number", "whom", "settings"),
    [
        pytest.param(signal.SIGUSR1, "chain", WORKERS, id="USR1-workers"),
        pytest.param(signal.SIGTERM, "group", TWO, id="TERM-group-two", marks=pytest.mark.slow),
        pytest.param(signal.SIGTERM, "chain", [], id="TERM", marks=pytest.mark.slow),
        pytest.param(signal.SIGHUP, "group", WORKERS, id="HUP-group-workers", marks=pytest.mark.slow),
        pytest.param(signal.SIGINT, "group", [], id="INT-group", marks=pytest.mark.slow),
        pytest.param(signal.SIGHUP, "chain", TWO, id="HUP-two", marks=pytest.mark.slow),
    ],
)
def test_chain_that_a_signal_ends(folder, number, whom, settings):
    file = tiny.write_chain(folder / "tiny.yaml")
    given = [word for text in (*LONG, *settings) for word in ("--set", text)]
    process = started(["chain", file, "--out", "out", *given], folder)
    try:
        wait_for("out/.runs/victim/checkpoints/*.ckpt", folder, process)
        assert stop(process, number, whom) < 30
        said = (folder / "said").read_text()
        assert process.returncode == 128 + number, said
        assert "Traceback" not in said
        assert f"stopped by {number.name}" in said.splitlines()[-1]
        assert "again with the same --out" in said.splitlines()[-1]
        assert not running(folder)
        with (folder / "out" / ".lock").open("r+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        assert not (folder / "out" / "victim").exists()
        assert list(folder.glob("out/.runs/victim/checkpoints/*.ckpt"))
    finally:
        for pid in running(folder):
            os.kill(int(pid), signal.SIGKILL)


@pytest.mark.slow
def test_stage_that_a_signal_ends_names_the_checkpoint(folder):
    config = written(folder, POISONED, {"max_epochs": 500, "enable_checkpointing": True})
    process = started(["fit", "--config", config, "--out", "b"], folder)
    try:
        wait_for("**/*.ckpt", folder, process)
        assert stop(process, signal.SIGTERM, "process") < 30
        last = (folder / "said").read_text().splitlines()[-1]
        assert process.returncode == 143
        assert "stopped by SIGTERM" in last
        assert Path(last.rpartition("--ckpt_path ")[2].strip("'.")).is_file()
        assert not (folder / "b").exists()
    finally:
        process.kill()
