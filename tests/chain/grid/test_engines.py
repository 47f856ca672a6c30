"""Engines run the command that they are given, and nothing of it outlives them."""

import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
from grid_parts import gone, write_grid

from lit_backdoor.chain.engines.on_ray import _make_folder, _own_signals, _settings
from lit_backdoor.chain.engines.slurm import write_script
from lit_backdoor.chain.engines.task import Task, last_line, run
from lit_backdoor.signals import Stopped

STUB = """
import os, pathlib, sys, time
print("OMP", os.environ.get("OMP_NUM_THREADS"), os.environ.get("LIT_BACKDOOR_CACHE"), *sys.argv[1:], flush=True)
if sys.argv[1] == "fail":
    sys.exit("lit-backdoor: Expected less.")
if sys.argv[1] == "chain":
    pathlib.Path("pid").write_text(str(os.getpid()))
    time.sleep(60)
"""


@pytest.fixture
def stub(tmp_path):
    """A folder in which ``python -m lit_backdoor`` is a program that says what it got."""
    (tmp_path / "stub" / "lit_backdoor").mkdir(parents=True)
    (tmp_path / "stub" / "lit_backdoor" / "__init__.py").touch()
    (tmp_path / "stub" / "lit_backdoor" / "__main__.py").write_text(STUB)
    return tmp_path / "stub"


def task(stub, name, *words, **options):
    return Task(
        name, words, stub / f"{name}.log", stub, **{"cpus": 3, "environment": {"LIT_BACKDOOR_CACHE": "/c"}, **options}
    )


def test_command_gets_its_threads_and_its_log_starts_with_what_a_person_would_type(stub):
    assert run(task(stub, "one", "list", "my attacks")) == 0
    assert (stub / "one.log").read_text() == "$ lit-backdoor list 'my attacks'\nOMP 3 /c list my attacks\n"


def test_exit_code_and_reason_are_kept(stub):
    assert run(task(stub, "one", "fail")) == 1
    assert last_line(stub / "one.log") == "Expected less."
    assert last_line(stub / "none.log") == ""


# Signals to the driver, whose commands are stubs that sleep.


def driver(stub, tmp_path, *options):
    words = ["grid", write_grid(tmp_path), "--out", str(tmp_path / "out"), *options]
    env = {**os.environ, "LIT_BACKDOOR_CACHE": str(tmp_path / "store")}
    process = subprocess.Popen(  # -P, so that the driver itself is no stub
        [sys.executable, "-P", "-m", "lit_backdoor", *words], cwd=stub, env=env, stderr=subprocess.PIPE, text=True
    )
    for _ in range(600):
        if (stub / "pid").is_file() and (stub / "pid").read_text():
            return process, int((stub / "pid").read_text())
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.1)
    process.kill()
    pytest.fail("no command was started")


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_command_ends_with_its_driver(stub, tmp_path, number, code):
    process, command = driver(stub, tmp_path)
    process.send_signal(number)
    assert process.wait(30) == code
    assert gone(command)
    if number != signal.SIGKILL:
        assert "again" in process.stderr.read()
        assert (tmp_path / "out" / "rows.jsonl").read_text().count("missing") == 12


# Ray, without Ray.


def test_local_ray_keeps_out_of_shared_memory_and_home(tmp_path):
    """Shared memory may be 64 MB only, as in a container; results are exit codes, which need none."""
    given = _settings(None, tmp_path)
    assert given["_plasma_directory"] == given["_temp_dir"] == str(tmp_path)
    assert given["object_store_memory"] <= 80 * 2**20  # Ray refuses less than 75 MB
    assert not given["include_dashboard"]
    assert given["num_cpus"] == len(os.sched_getaffinity(0))


def test_cluster_that_is_joined_keeps_its_own_settings():
    assert _settings("auto", None) == {"address": "auto", "log_to_driver": False, "configure_logging": False}


def test_sockets_of_ray_fit_into_its_folder(monkeypatch, tmp_path):
    """A path of a socket has 107 characters at most; TMPDIR may be longer alone."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / ("a" * 40)))
    folder = _make_folder()
    folder.rmdir()
    assert folder.parent == Path("/tmp")


def test_sigterm_while_ray_starts_stops_the_command_and_its_handler_is_as_before():
    @_own_signals()
    def start(code):
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(code))  # as ray.init does with the number
        signal.raise_signal(signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Stopped) as stopped:
        start(15)
    assert stopped.value.code == 143
    assert signal.getsignal(signal.SIGTERM) == before
    with pytest.raises(SystemExit, match="3"):
        start(3)


# Slurm.


def fake_sbatch(folder):
    """An ``sbatch`` that runs arrays at once and gives job numbers; notes its arguments."""
    file = folder / "bin" / "sbatch"
    file.parent.mkdir()
    file.write_text(f"""#!{sys.executable}
import os, re, subprocess, sys
words = sys.argv[1:]
with open({str(folder / "calls")!r}, "a") as calls:
    calls.write(" ".join(words) + "\\n")
script = next(place for place, word in enumerate(words) if not word.startswith("-"))
last = int(next(re.search(r"--array=0-(\\d+)", word)[1] for word in words if word.startswith("--array")))
for number in range(last + 1):
    subprocess.run(["sh", *words[script:]], env={{**os.environ, "SLURM_ARRAY_TASK_ID": str(number)}})
print(f"{{len(open({str(folder / "calls")!r}).readlines())}};here")
""")
    file.chmod(file.stat().st_mode | stat.S_IXUSR)
    return {**os.environ, "PATH": f"{file.parent}:{os.environ['PATH']}"}


def test_slurm_script_runs_levels_in_order_and_nothing_whose_needs_failed(stub, tmp_path):
    victims = [task(stub, f"victim {n}", "list", str(n), cpus=n + 1) for n in range(2)]
    cells = [task(stub, f"cell{n}", "list", f"it's {n}", gpus=0.5) for n in range(3)]
    made = {"victim 0": tmp_path / "there", "victim 1": tmp_path / "not there"}
    made["victim 0"].touch()
    needs = {**{task.name: {} for task in victims}, "cell0": {"victim 0": made["victim 0"]}, "cell1": made, "cell2": {}}
    submit = write_script([*victims, *cells], needs, tmp_path / "slurm")
    subprocess.run(["sh", submit], check=True, env=fake_sbatch(tmp_path))
    calls = (tmp_path / "calls").read_text().splitlines()
    options = [[word for word in call.split() if word.startswith("--")] for call in calls]
    assert options == [
        ["--parsable", "--array=0-0", "--cpus-per-task=1"],
        ["--parsable", "--array=0-0", "--cpus-per-task=2"],
        ["--parsable", "--array=0-0", "--cpus-per-task=3", "--gpus=1"],
        ["--parsable", "--array=0-1", "--cpus-per-task=3", "--gpus=1", "--dependency=afterany:1:2:3"],
    ]
    assert (stub / "cell0.log").read_text() == "OMP 3 /c list it's 0\n"
    assert (stub / "cell1.log").read_text() == "blocked by victim 1\n"


def test_slurm_of_a_grid_says_how_to_submit_and_collects_what_was_done(tmp_path, capfd, cache):
    from lit_backdoor.cli import main

    assert main(["grid", write_grid(tmp_path), "--engine", "slurm", "--out", str(tmp_path / "out")]) == 0
    assert f"sh {tmp_path / 'out' / 'slurm' / 'submit.sh'}" in capfd.readouterr().out
    levels = sorted((tmp_path / "out" / "slurm").glob("level*.txt"))
    assert [len(level.read_text().splitlines()) for level in levels] == [4, 12]
    assert (tmp_path / "out" / "rows.jsonl").read_text().count("missing") == 12
