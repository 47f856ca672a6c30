"""How a stage is started: how many processes it needs, the command of its own, the lock on the chain's folder."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from lit_backdoor.errors import check_devices
from lit_backdoor.signals import PATIENCE, Stopped, on_slurm

__all__ = ["count_processes", "find_program", "keep_lock_from_children", "locked", "spawn"]


def find_program(launcher: str | None) -> str | None:
    """Find a launcher's program; also beside this Python, whose environment need not be activated."""
    try:
        words = shlex.split(launcher or "")
    except ValueError as error:
        raise ValueError(f"Expected --launcher as a command line, got {launcher!r}: {error}.") from error
    places = os.pathsep.join((os.environ.get("PATH", os.defpath), str(Path(sys.executable).parent)))
    return shutil.which(words[0], path=places) if words else None


def count_processes(trainer: Mapping[str, Any]) -> int:
    """Count the processes that a Trainer would start: where they are several, each of them runs the command again.

    Args:
        trainer: The Trainer's arguments.

    Raises:
        ValueError: If ``devices`` names none or more than any machine has, or ``num_nodes`` is no number of machines.
    """
    devices, nodes = trainer.get("devices", "auto"), trainer.get("num_nodes", 1)
    text = str(devices).replace(",", "")
    listed = isinstance(devices, list) and bool(devices)
    if type(nodes) is not int or nodes < 1:
        raise ValueError(f"Expected the Trainer's num_nodes to be a whole number above 0, got {nodes!r}.")
    check_devices(devices)
    if not (listed or text in ("auto", "-1") or (text.isdigit() and devices not in (0, "0"))):
        raise ValueError(
            f"Expected the Trainer's devices to be a number above 0, -1, auto or a list of numbers, got {devices!r}."
        )
    if isinstance(devices, list):
        devices = len(devices)
    elif devices in ("auto", -1, "-1"):
        devices = 1 if trainer.get("accelerator") == "cpu" else max(1, torch.cuda.device_count())
    return int(devices) * nodes if str(devices).isdigit() else 2


def spawn(arguments: list[str], launcher: str | None, lock: int) -> None:
    """Run ``lit-backdoor`` with these arguments as a command of its own.

    Where this process is stopped meanwhile, the command gets the same signal, and is ended if it does not stop in time.

    Args:
        arguments: The subcommand and its options.
        launcher: Command that starts it on several devices; None starts it as it is.
        lock: File descriptor of the folder's lock; the command inherits it, so that an orphan keeps the lock.
    """
    words = shlex.split(launcher or "")
    torchrun = bool(words) and Path(words[0]).name == "torchrun"
    if found := find_program(launcher):
        words[0] = found
    run = ["-m", "lit_backdoor"] if torchrun else [sys.executable, "-m", "lit_backdoor"]
    environment = {**os.environ, _LOCK: str(lock)}
    process = subprocess.Popen([*words, *run, *arguments], pass_fds=[lock], start_new_session=True, env=environment)
    if on_slurm():  # the stage queues the job again
        signal.signal(signal.SIGUSR1, lambda number, frame: os.killpg(process.pid, number))
    try:
        process.wait()
    except BaseException as error:
        number = error.number if isinstance(error, Stopped) else signal.SIGTERM
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(PATIENCE + 5)
        raise
    finally:
        with contextlib.suppress(ProcessLookupError):  # processes of a stage that died without them
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def keep_lock_from_children() -> None:
    """Close the lock of a chain's folder in processes that this stage forks: a loader's may live longer than it."""
    lock = os.environ.pop(_LOCK, None)
    with contextlib.suppress(OSError, ValueError):
        file = Path(f"/proc/self/fd/{int(lock or '')}").readlink()  # a launcher may not have passed it on
        if file.name == ".lock":
            _held.add(int(lock or ""))


def _close_held() -> None:
    for lock in _held:
        with contextlib.suppress(OSError):
            os.close(lock)
    _held.clear()


_LOCK = "LIT_BACKDOOR_LOCK"  # its file descriptor, for the command of a stage
_held: set[int] = set()
os.register_at_fork(after_in_child=_close_held)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[int]:
    """Hold the lock on a chain's folder; gives its file descriptor.

    Raises:
        ValueError: If another run holds it.
    """
    lock = os.open(folder / ".lock", os.O_CREAT | os.O_RDWR, 0o666)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(
                f"Another run is writing {folder} (or a stage of an earlier one still is). Wait for it, or give "
                "another --out."
            ) from None
        _held.add(lock)
        yield lock
    finally:
        _held.discard(lock)
        os.close(lock)
