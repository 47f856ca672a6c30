"""Ray as the engine: its own processes, so these tests are slow."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from grid_parts import gone, write_grid

pytest.importorskip("ray")
pytestmark = pytest.mark.slow

STUB = """
import os, pathlib, signal, sys, time
def stop(number, frame):
    pathlib.Path("stopped").touch()
    sys.exit(1)
signal.signal(signal.SIGTERM, stop)
print("OMP", os.environ["OMP_NUM_THREADS"], flush=True)
if sys.argv[1] == "lose":
    os.kill(os.getppid(), signal.SIGKILL)
if sys.argv[1] != "end":
    pathlib.Path("pid").write_text(str(os.getpid()))
    time.sleep(60)
"""
DRIVER = """
import json, pathlib, sys
from lit_backdoor.chain.engines.on_ray import Ray
from lit_backdoor.chain.engines.task import Task
words, address, cpus, gpus = json.loads(sys.argv[1])
engine = Ray(address)
folder = pathlib.Path(__file__).parent / "stub"
try:
    for word in words:
        at = folder / "nowhere" if word == "lost" else folder
        engine.start(Task(word, (word,), folder / f"{word}.log", at, cpus, gpus))
    for word in words:
        print(engine.wait(), flush=True)
finally:
    engine.stop()
"""


@pytest.fixture
def stub(tmp_path):
    """A folder in which ``python -m lit_backdoor`` is a program that ends, stays or loses its worker."""
    (tmp_path / "stub" / "lit_backdoor").mkdir(parents=True)
    (tmp_path / "stub" / "lit_backdoor" / "__init__.py").touch()
    (tmp_path / "stub" / "lit_backdoor" / "__main__.py").write_text(STUB)
    (tmp_path / "driver.py").write_text(DRIVER)
    return tmp_path / "stub"


@pytest.fixture
def short():
    """A temporary folder of a short name, in which Ray's sockets fit."""
    folder = tempfile.mkdtemp(dir="/tmp")
    yield folder
    shutil.rmtree(folder)


def start(stub, *words, address=None, cpus=1, gpus=0, before=(), **environment):
    return subprocess.Popen(
        [*before, sys.executable, stub.parent / "driver.py", json.dumps([words, address, cpus, gpus])],
        cwd=stub.parent,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def said(process):
    out, err = process.communicate(timeout=600)
    return out + err


def pid_of(stub):
    for _ in range(2400):
        if (stub / "pid").is_file() and (stub / "pid").read_text():
            return int((stub / "pid").read_text())
        time.sleep(0.1)
    raise AssertionError("no command was started")


def test_commands_run_with_their_threads_and_what_is_lost_is_said_once(stub, tmp_path, short):
    """HOME may not be written, nothing is left in it, and Ray does not try again by itself."""
    home = tmp_path / "home"
    home.mkdir(mode=0o500)
    text = said(start(stub, "end", "lose", "lost", cpus=999, HOME=str(home), TMPDIR=short))
    assert "Ended(name='end', code=0" in text
    assert "Ended(name='lose', code=None, problem='its worker was lost')" in text
    assert "its machine could not start it" in text
    assert "nowhere" in text
    assert (stub / "end.log").read_text() == "$ lit-backdoor end\nOMP 999\n"
    assert (stub / "lose.log").read_text().count("$ lit-backdoor lose") == 1
    assert not (stub / "pid").exists() or gone(pid_of(stub))
    assert not list(home.iterdir())
    assert not list(Path(short).iterdir())


def test_command_that_asks_for_more_gpus_than_there_are_is_refused(stub):
    assert "Expected 1 CPUs and 999 GPUs here" in said(start(stub, "end", gpus=999))
    assert not (stub / "end.log").exists()


def test_memory_that_is_full_is_said(stub):
    """Here it counts as full from the start."""
    full = {"RAY_memory_usage_threshold": "0.0001", "RAY_memory_monitor_refresh_ms": "100"}
    assert "ran out of memory: more cpus for it in 'resources'" in said(start(stub, "stay", **full))
    assert not (stub / "pid").exists() or gone(pid_of(stub))


def test_needs_little_shared_memory(stub):
    """A container gives 64 MB; here a file system of that size is put in its place for one process."""
    private = ["unshare", "--user", "--map-root-user", "--mount"]
    small = "mount -t tmpfs -o size=64m tmpfs /dev/shm"
    if subprocess.run([*private, "sh", "-c", small], capture_output=True, check=False).returncode:
        pytest.skip("this system lets nobody mount for one process")
    text = said(start(stub, "end", before=[*private, "sh", "-c", f'{small} && exec "$@"', "sh"]))
    assert "Ended(name='end', code=0" in text


def test_no_command_outlives_a_killed_driver(stub):
    process = start(stub, "stay")
    command = pid_of(stub)
    process.kill()
    assert gone(command)


def test_joins_a_running_cluster(stub):
    ray = Path(sys.executable).with_name("ray")
    env = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled"}
    options = ["--port=6399", "--num-cpus=1", "--include-dashboard=false", "--node-ip-address=127.0.0.1"]
    subprocess.run([ray, "start", "--head", *options], check=True, env=env, stdout=subprocess.DEVNULL)
    try:
        for address in ("127.0.0.1:6399", "auto"):
            assert "Ended(name='end', code=0" in said(start(stub, "end", address=address, RAY_AUTH_MODE="disabled"))
    finally:
        subprocess.run([ray, "stop", "--force"], check=True, env=env, stdout=subprocess.DEVNULL)


CLUSTER = """
import os, pathlib, time
os.environ.update(RAY_AUTH_MODE="disabled", RAY_USAGE_STATS_ENABLED="0")
import ray
from ray.cluster_utils import Cluster
from lit_backdoor.chain.engines.on_ray import Ray
from lit_backdoor.chain.engines.task import Task
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
node = cluster.add_node(num_cpus=1)
engine = Ray(cluster.address)
folder = pathlib.Path(__file__).parent / "stub"
engine.start(Task("stay", ("stay",), folder / "stay.log", folder, 1))
while not (folder / "pid").is_file():
    time.sleep(0.1)
cluster.remove_node(node, allow_graceful=False)
print(engine.wait(), flush=True)
while sum(node["Alive"] for node in ray.nodes()) > 1:
    time.sleep(0.1)
engine.start(Task("end", ("end",), folder / "end.log", folder, 2))
cluster.add_node(num_cpus=2)
print(engine.wait(), flush=True)
engine.stop()
cluster.shutdown()
"""


def test_command_of_a_killed_node_is_lost_and_another_node_takes_the_next(stub):
    (stub.parent / "cluster.py").write_text(CLUSTER)
    words = [sys.executable, stub.parent / "cluster.py"]
    done = subprocess.run(words, cwd=stub.parent, capture_output=True, text=True, check=True, timeout=600)
    assert [line.partition(", problem")[0] for line in done.stdout.splitlines() if line.startswith("Ended")] == [
        "Ended(name='stay', code=None", "Ended(name='end', code=0",
    ]  # fmt: skip
    assert "No machine of the Ray cluster has 2 CPUs and 0 GPUs" in done.stderr
    assert gone(pid_of(stub))


@pytest.mark.parametrize(
    ("number", "code", "send"),
    [(signal.SIGINT, 130, os.kill), (signal.SIGTERM, 143, os.kill), (signal.SIGTERM, 143, os.killpg)],
)
def test_signal_to_the_driver_ends_its_commands(stub, tmp_path, short, number, code, send):
    """They stop by themselves, unless Ray's own processes get the signal too."""
    (stub / "lit_backdoor" / "__main__.py").write_text(STUB.replace('!= "end"', '== "chain"'))
    words = [sys.executable, "-P", "-m", "lit_backdoor", "grid", write_grid(tmp_path), "--engine", "ray"]
    process = subprocess.Popen(
        [*words, "--out", str(tmp_path / "out")],
        cwd=stub,
        env={**os.environ, "LIT_BACKDOOR_CACHE": str(tmp_path / "store"), "TMPDIR": short},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    command = pid_of(stub)
    send(process.pid, number)
    assert process.wait(60) == code
    assert "again" in process.stderr.read()
    assert gone(command)
    assert (stub / "stopped").exists() or send is os.killpg
    assert not list(Path(short).iterdir())


def test_twelve_cells_give_the_same_bundles_on_ray_as_one_after_another(tmp_path):
    """Each victim is trained once; the same grid again runs nothing."""
    hashes = {}
    for engine in ("inline", "ray"):
        env = {**os.environ, "LIT_BACKDOOR_CACHE": str(tmp_path / f"store-{engine}")}
        words = ["grid", write_grid(tmp_path), "--engine", engine, "--out", str(tmp_path / engine)]
        for _ in range(2):
            done = subprocess.run(
                [sys.executable, "-m", "lit_backdoor", *words], env=env, capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, done.stdout + done.stderr
        assert "0 to run (0 of them blocked by others), 16 cached" in done.stdout
        assert "started" not in done.stdout
        found = [json.loads(file.read_text()) for file in sorted((tmp_path / engine / "cells").glob("*/results.json"))]
        assert len(found) == 12
        hashes[engine] = [[stage["hash"] for stage in results["stages"]] for results in found]
        logs = [file.read_text() for file in (tmp_path / engine / "logs").iterdir()]
        assert sum(log.count("victim: ran") for log in logs) == 4
    assert hashes["inline"] == hashes["ray"]
