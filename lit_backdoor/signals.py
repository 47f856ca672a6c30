"""Signals that end a command: training stops at a batch, everything else at once, and nothing remains for long.

Only a command's own process listens, see `listening`; inside somebody else's program signals stay theirs.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

__all__ = ["PATIENCE", "Stopped", "end_children", "hold", "listening", "on_slurm", "received", "release"]

PATIENCE = 15.0  # seconds that a command has to stop by itself
_AGAIN = 1.0  # seconds within which a signal is the same one, passed on by several
_lock = threading.Lock()


class Stopped(SystemExit):
    """A signal ended the command; its code is 128 + the signal's number.

    Attributes:
        number: The signal.
        checkpoint: The checkpoint to go on from, where the command has one.
    """

    def __init__(self, number: int, checkpoint: str | None = None) -> None:
        super().__init__(128 + number)
        self.number = number
        self.checkpoint = checkpoint


class _State:
    listening = False
    held = False  # whether a training loop asks for the signal itself
    number: int | None = None
    since = 0.0


def on_slurm() -> bool:
    """Say whether Slurm runs this process, whose SIGUSR1 is Lightning's sign to queue the job again.

    A shell within a job is not meant, as Lightning has it: what a person starts there is not queued.
    """
    return "SLURM_NTASKS" in os.environ and os.environ.get("SLURM_JOB_NAME") not in ("bash", "interactive")


def received() -> int | None:
    """Give the signal that asked this process to stop, or None."""
    return _State.number


def hold() -> None:
    """Let signals wait until the caller asks for them by `received`, from here to `release`.

    Handlers that were put in between are replaced: Lightning's would speak to other processes from within a handler.
    """
    if _State.listening:
        _State.held = True
        _set_handlers()


def release() -> None:
    """Let signals end the command at once again."""
    _State.held = False


@contextlib.contextmanager
def listening() -> Iterator[None]:
    """Turn the signals that end a command into `Stopped`; for the main thread of a process that is ours.

    A thread of its own ends the process by force where it does not stop within `PATIENCE` seconds, even if it waits for
    another process inside a library.
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    before = {number: signal.getsignal(number) for number in _numbers()}
    _State.listening, _State.held, _State.number = True, False, None
    old = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    threading.Thread(target=_watch, args=(reader,), daemon=True).start()
    _set_handlers()
    try:
        yield
    finally:
        _State.listening = False
        signal.set_wakeup_fd(old)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(writer)  # the thread reads its end and goes


def end_children(patience: float) -> None:
    """Wait for this process's children to end, and end those that have not after ``patience`` seconds."""
    deadline = time.monotonic() + patience
    while (left := _children()) and time.monotonic() < deadline:
        time.sleep(0.05)
    for pid in left:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)


def _numbers() -> tuple[signal.Signals, ...]:
    ours = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    return ours if on_slurm() else (*ours, signal.SIGUSR1)


def _set_handlers() -> None:
    for number in _numbers():
        signal.signal(number, _handle)


def _handle(number: int, frame: FrameType | None) -> None:
    now = time.monotonic()
    if _State.number is None:
        _State.number, _State.since = number, now
        if _State.held:
            return
    elif now - _State.since < _AGAIN:
        return
    raise Stopped(_State.number)


def _watch(reader: int) -> None:
    """Count the time from the first signal on, whatever the main thread does."""
    with open(reader, "rb", buffering=0) as pipe:
        while read := pipe.read(1):
            if read[0] in _numbers():
                timer = threading.Timer(PATIENCE, _end_by_force, (read[0],))
                timer.daemon = True
                timer.start()
                break
        pipe.read()  # to its end, so that the other one can always write


def _end_by_force(number: int) -> None:
    if not _State.listening:
        return
    sys.stderr.write(f"lit-backdoor: stopped by {signal.Signals(number).name}, by force after {PATIENCE:.0f} s.\n")
    sys.stderr.flush()
    end_children(0.0)
    os._exit(128 + number)


def _children() -> list[int]:
    """Find this process's children that still run; also those that are nobody's ``multiprocessing`` ones."""
    found = {process.pid for process in multiprocessing.active_children() if process.pid}  # which also buries dead ones
    for file in Path("/proc/self/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found |= {int(pid) for pid in file.read_text().split()}
    return [pid for pid in found if _runs(pid)]


def _runs(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def _in_a_forked_child() -> None:
    """Leave signals to the parent: a loader's process ends when the parent does."""
    if _State.listening:
        _State.listening = _State.held = False
        signal.set_wakeup_fd(-1)
        for number in _numbers():
            signal.signal(number, signal.SIG_DFL if number == signal.SIGTERM else signal.SIG_IGN)


os.register_at_fork(after_in_child=_in_a_forked_child)
