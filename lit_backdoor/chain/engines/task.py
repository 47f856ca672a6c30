"""What an engine runs: one command line, its log, its threads; the command ends if its starter dies.

A machine of a cluster gets `run` by value: it may use modules of Python itself, and nothing of this package.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from lit_backdoor.signals import PATIENCE

__all__ = ["Ended", "Engine", "Task", "cpus_here", "last_line", "run", "terminate"]

_PATIENCE = PATIENCE - 5  # seconds that a command has to stop; this process itself is ended by force after PATIENCE
_PR_SET_PDEATHSIG = 1
_SAYS = "lit-backdoor: "


@dataclass(frozen=True)
class Task:
    """One command line.

    Attributes:
        name: Name of the node.
        words: The arguments of ``lit-backdoor``.
        log: File that takes what the command prints.
        folder: Folder to run in.
        cpus: Threads, and CPUs to reserve.
        gpus: GPUs to reserve, or a share of one.
        environment: Variables to set.
    """

    name: str
    words: tuple[str, ...]
    log: Path
    folder: Path
    cpus: int
    gpus: float = 0
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def line(self) -> str:
        """The command as a person would type it."""
        return shlex.join(["lit-backdoor", *self.words])

    @property
    def variables(self) -> dict[str, str]:
        """Everything that is set for it: Ray would leave it one thread, others all."""
        threads = str(self.cpus)
        return {**self.environment, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}


@dataclass(frozen=True)
class Ended:
    """How a task ended.

    Attributes:
        name: Its name.
        code: The exit code of its command, negative for a signal; None if there is none.
        problem: Why there is none.
    """

    name: str
    code: int | None
    problem: str = ""


class Engine(Protocol):
    """Runs tasks.

    Attributes:
        slots: Tasks that it takes at once; None for any number.
    """

    slots: int | None

    def start(self, task: Task) -> None:
        """Take a task."""

    def wait(self) -> Ended:
        """Wait until one of the tasks taken has ended."""

    def stop(self) -> None:
        """End what still runs and give everything back."""


def run(task: Task) -> int:
    """Run a task in a process group of its own; gives its exit code. Whatever ends this call ends the command."""
    task.log.parent.mkdir(parents=True, exist_ok=True)
    with task.log.open("a") as log:
        log.write(f"$ {task.line}\n")
        log.flush()
        process = subprocess.Popen(
            [sys.executable, "-m", "lit_backdoor", *task.words],
            cwd=task.folder,
            env={**os.environ, **task.variables},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=_follower(),
        )
        try:
            return process.wait()
        finally:
            terminate(process)


def terminate(process: subprocess.Popen[bytes]) -> None:
    """Stop a command and all that it started; it may finish what a signal lets it finish."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        if process.poll() is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_PATIENCE)


def last_line(log: Path) -> str:
    """Give the last line of a log in which the command says why it ended, else the last one at all."""
    try:
        lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    except OSError:
        return ""
    said = [line.removeprefix(_SAYS) for line in lines if line.startswith(_SAYS)]
    return (said or lines or [""])[-1]


def cpus_here() -> int:
    """Count the CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _follower() -> Callable[[], int] | None:
    """Give what a new process calls so that the system ends it when the one that started it dies, killed or not."""
    if sys.platform != "linux":
        return None
    libc = ctypes.CDLL(None)
    return lambda: libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
