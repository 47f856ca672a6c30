"""Signals to a process that is ours: at once, or where a loop asks; by force where it does not end."""

import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def ran(code, after=""):
    """Run code in a process of its own under ``listening``; gives its exit code and what it printed."""
    body = textwrap.indent(textwrap.dedent(code), "    ")
    text = f"import os, signal, sys, time\nfrom lit_backdoor import signals\nsignals.PATIENCE = 0.5\nwith signals.listening():\n{body}\n{after}"
    done = subprocess.run(
        [sys.executable, "-c", text], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60
    )
    return done.returncode, done.stdout


@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 143), ("SIGHUP", 129), ("SIGINT", 130), ("SIGUSR1", 138)])
def test_signal_ends_the_process_with_its_number(name, code):
    assert ran(f"signal.raise_signal(signal.{name}); print('went on')") == (code, "")


def test_loop_that_holds_asks_for_the_signal_itself():
    code = """
        signals.hold()
        signal.raise_signal(signal.SIGTERM)
        print(signals.received() == signal.SIGTERM)
        """
    assert ran(code) == (0, "True\n")


def test_handlers_of_others_are_replaced_by_hold():
    code = """
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signals.hold()
        signal.raise_signal(signal.SIGTERM)
        print(signals.received() == signal.SIGTERM)
        """
    assert ran(code) == (0, "True\n")


def test_second_signal_does_not_wait_for_the_loop():
    code = """
        signals.hold()
        signal.raise_signal(signal.SIGINT)
        signals._State.since -= 2
        signal.raise_signal(signal.SIGINT)
        print("went on")
        """
    assert ran(code) == (130, "")


def test_process_that_does_not_end_is_ended_with_its_children():
    code = """
        import subprocess
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
        print(child.pid, flush=True)
        signals.hold()
        signal.raise_signal(signal.SIGHUP)
        time.sleep(60)
        """
    status, said = ran(code)
    assert status == 129
    deadline = time.monotonic() + 10
    while Path(f"/proc/{int(said)}").exists():  # a moment, until the kernel has buried it
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_forked_child_leaves_signals_to_its_parent():
    code = """
        if os.fork() == 0:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGHUP)
            os._exit(7)
        print(os.waitstatus_to_exitcode(os.wait()[1]), signals.received())
        """
    assert ran(code) == (0, "7 None\n")


@pytest.mark.parametrize(("job", "slurm"), [("train", True), ("bash", False), ("interactive", False)])
def test_sigusr1_is_slurm_s_in_a_job_but_not_in_a_shell_of_one(job, slurm):
    code = f"""
        os.environ.update(SLURM_NTASKS="1", SLURM_JOB_NAME="{job}")
        print(signal.SIGUSR1 in signals._numbers(), signals.on_slurm())
        """
    assert ran(code) == (0, f"{not slurm} {slurm}\n")


def test_handlers_are_as_before_afterwards():
    after = "print(signal.getsignal(signal.SIGTERM) == signal.SIG_DFL, signal.set_wakeup_fd(-1))"
    assert ran("pass", after) == (0, "True -1\n")
