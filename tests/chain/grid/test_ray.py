"""Ray as the engine: its own processes, so these tests are slow."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from grid_parts import gone, write_grid

pytest.importorskip("ray")
pytestmark = pytest.mark.slow

STUB = """
import os, pathlib, signal, sys, time
print("OMP", os.environ["OMP_NUM_THREADS"], flush=True)
if sys.argv[1] == "lose":
    os.kill(os.getppid(), signal.SIGKILL)
if sys.argv[1] != "end":
    pathlib.Path("pid").write_text(str(os.getpid()))
    time.sleep(60)
"""
DRIVER = """
import sys, pathlib
from lit_backdoor.chain.engines.on_ray import Ray
from lit_backdoor.chain.engines.task import Task
engine = Ray(address=sys.argv[2] if len(sys.argv) > 2 else None)
folder = pathlib.Path(__file__).parent / "stub"
try:
    for word in sys.argv[1].split(","):
        engine.start(Task(word, (word,), folder / f"{word}.log", folder, 1))
    for word in sys.argv[1].split(","):
        print(engine.wait(), flush=True)
finally:
    engine.stop()
"""


@pytest.fixture
def stub(tmp_path):
    (tmp_path / "stub" / "lit_backdoor").mkdir(parents=True)
    (tmp_path / "stub" / "lit_backdoor" / "__init__.py").touch()
    (tmp_path / "stub" / "lit_backdoor" / "__main__.py").write_text(STUB)
    (tmp_path / "driver.py").write_text(DRIVER)
    return tmp_path / "stub"


def start(stub, *words, **environment):
    env = {**os.environ, **environment}
    return subprocess.Popen(
        [sys.executable, stub.parent / "driver.py", *words], cwd=stub.parent, env=env, stdout=subprocess.PIPE, text=True
    )


def pid_of(stub):
    for _ in range(900):
        if (stub / "pid").is_file() and (stub / "pid").read_text():
            return int((stub / "pid").read_text())
        time.sleep(0.1)
    raise AssertionError("no command was started")


def test_commands_run_with_their_threads_and_a_lost_worker_is_said_once(stub, tmp_path):
    """HOME may not be written, nothing is left in it, and Ray does not try again by itself."""
    home = tmp_path / "home"
    home.mkdir(mode=0o500)
    process = start(stub, "end,lose", HOME=str(home))
    said = process.communicate(timeout=240)[0]
    assert "Ended(name='end', code=0)" in said
    assert "Ended(name='lose', code=None)" in said
    assert (stub / "end.log").read_text() == "$ lit-backdoor end\nOMP 1\n"
    assert (stub / "lose.log").read_text().count("$ lit-backdoor lose") == 1
    assert gone(pid_of(stub)) if (stub / "pid").exists() else True
    assert not list(home.iterdir())


def test_no_command_outlives_a_killed_driver(stub):
    process = start(stub, "stay")
    command = pid_of(stub)
    process.kill()
    assert gone(command)


@pytest.mark.parametrize("address", ["127.0.0.1:6399", "auto"])
def test_joins_a_running_cluster(stub, address):
    ray = Path(sys.executable).with_name("ray")
    env = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled"}
    words = [
        "start",
        "--head",
        "--port=6399",
        "--num-cpus=1",
        "--include-dashboard=false",
        "--node-ip-address=127.0.0.1",
    ]
    subprocess.run([ray, *words], check=True, env=env, stdout=subprocess.DEVNULL)
    try:
        process = start(stub, "end", address, RAY_AUTH_MODE="disabled")
        assert "Ended(name='end', code=0)" in process.communicate(timeout=240)[0]
    finally:
        subprocess.run([ray, "stop", "--force"], check=True, env=env, stdout=subprocess.DEVNULL)


CLUSTER = """
import os, pathlib, sys, time
os.environ.update(RAY_AUTH_MODE="disabled", RAY_USAGE_STATS_ENABLED="0")
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
cluster.add_node(num_cpus=1)
engine.start(Task("end", ("end",), folder / "end.log", folder, 1))
print(engine.wait(), flush=True)
engine.stop()
cluster.shutdown()
"""


def test_command_of_a_killed_node_is_lost_and_another_node_takes_the_next(stub):
    (stub.parent / "cluster.py").write_text(CLUSTER)
    words = [sys.executable, stub.parent / "cluster.py"]
    done = subprocess.run(words, cwd=stub.parent, capture_output=True, text=True, check=True, timeout=500)
    assert [line for line in done.stdout.splitlines() if line.startswith("Ended")] == [
        "Ended(name='stay', code=None)", "Ended(name='end', code=0)",
    ]  # fmt: skip
    assert gone(pid_of(stub))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signal_to_the_driver_ends_its_commands(stub, tmp_path, number, code):
    (stub / "lit_backdoor" / "__main__.py").write_text(STUB.replace('!= "end"', '== "chain"'))
    words = [sys.executable, "-P", "-m", "lit_backdoor", "grid", write_grid(tmp_path), "--engine", "ray"]
    env = {**os.environ, "LIT_BACKDOOR_CACHE": str(tmp_path / "store")}
    process = subprocess.Popen(
        [*words, "--out", str(tmp_path / "out")], cwd=stub, env=env, stderr=subprocess.PIPE, text=True
    )
    command = pid_of(stub)
    process.send_signal(number)
    assert process.wait(60) == code
    assert "again" in process.stderr.read()
    assert gone(command)


def test_twelve_cells_give_the_same_bundles_on_ray_as_one_after_another(tmp_path):
    """Each victim is trained once; the same grid again runs nothing."""
    hashes = {}
    for engine in ("inline", "ray"):
        env = {**os.environ, "LIT_BACKDOOR_CACHE": str(tmp_path / f"store-{engine}")}
        words = ["grid", write_grid(tmp_path), "--engine", engine, "--out", str(tmp_path / engine)]
        for _ in range(2):
            said = subprocess.run(
                [sys.executable, "-m", "lit_backdoor", *words], check=True, env=env, capture_output=True, text=True
            ).stdout
        assert "0 to run (0 of them blocked by others), 16 cached" in said
        assert "started" not in said
        found = [json.loads(file.read_text()) for file in sorted((tmp_path / engine / "cells").glob("*/results.json"))]
        assert len(found) == 12
        hashes[engine] = [[stage["hash"] for stage in results["stages"]] for results in found]
        logs = [file.read_text() for file in (tmp_path / engine / "logs").iterdir()]
        assert sum(log.count("victim: ran") for log in logs) == 4
    assert hashes["inline"] == hashes["ray"]
