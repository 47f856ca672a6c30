"""Ray Core: tasks on one machine or a cluster. Ray moves command lines and exit codes, never tensors or results."""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import secrets
import shutil
import signal
import tempfile
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lit_backdoor.chain.engines import task as tasks
from lit_backdoor.chain.engines.task import Ended, Task, cpus_here
from lit_backdoor.signals import Stopped, received

__all__ = ["Ray"]

_LONGEST = 40  # characters of a folder in which the paths of Ray's sockets fit into the system's 107
_LAST_WORDS = 5.0  # seconds that Ray's processes have to end
_SLOW = {  # commands as fast as those of other engines, and a machine that they keep busy is not taken for a dead one
    "RAY_worker_niceness": "0",
    "RAY_worker_register_timeout_seconds": "600",
    "RAY_gcs_server_port_wait_time_s": "120",
    "RAY_health_check_failure_threshold": "60",
}


class Ray:
    """The engine that gives tasks to Ray, each with its CPUs and GPUs; retries are not Ray's business.

    On this machine a task that asks for more CPUs than there are gets all of them.

    Args:
        address: A running cluster (``auto`` or ``HOST:PORT``); None starts one on this machine, without dashboard,
            with its files in a temporary folder that is removed at the end.

    Raises:
        ValueError: If Ray is not installed or already runs in this process, or there is no cluster at the address.
    """

    slots: int | None = None

    def __init__(self, address: str | None = None) -> None:
        self._local = address is None
        _set_variables(self._local)
        try:
            import ray
        except ImportError as error:
            raise ValueError(
                "Expected Ray to be installed for --engine ray, found none: pip install 'lit-backdoor[ray]'. "
                "--engine inline needs nothing."
            ) from error
        if ray.is_initialized():
            raise ValueError("Expected no Ray in this process yet, found one. Call ray.shutdown() first.")
        self._ray: Any = ray  # parts of it have no types
        self._running, self._sizes = dict[Any, Task](), set[tuple[int, float]]()
        self._folder = _make_folder() if self._local else None
        try:
            with _own_signals():
                self._ray.init(**_settings(address, self._folder))
        except Exception as error:  # of any kind: a start that takes too long is a plain one
            self.stop()
            did = "start Ray here" if address is None else f"reach Ray at {address}"
            raise ValueError(f"Could not {did} ({error}). --engine inline needs no Ray.") from error
        except BaseException:
            self.stop()
            raise
        self._ray.cloudpickle.register_pickle_by_value(tasks)  # else workers import it, from the current folder first
        self._run = self._ray.remote(max_retries=0)(tasks.run)

    def start(self, task: Task) -> None:
        """Give a task to Ray, which runs it where there is room.

        Raises:
            ValueError: If it needs more GPUs than this machine has; of a cluster, that may grow, it is a warning.
        """
        cpus = min(task.cpus, cpus_here()) if self._local else task.cpus
        self._look_for_room(cpus, task.gpus)
        options = self._run.options(num_cpus=cpus, num_gpus=task.gpus, name=task.name)
        self._running[options.remote(task)] = task

    def wait(self) -> Ended:
        """Wait until one of the tasks has ended."""
        ready: list[Any] = []
        with _own_signals():
            while not ready:  # a short wait at a time, so that signals are heard
                ready, _ = self._ray.wait(list(self._running), num_returns=1, timeout=1)
        task, errors = self._running.pop(ready[0]), self._ray.exceptions
        try:
            return Ended(task.name, self._ray.get(ready[0]))
        except errors.OutOfMemoryError:
            problem = "its machine ran out of memory: more cpus for it in 'resources' of the grid let fewer run at once"
        except errors.RayTaskError as error:
            problem = f"its machine could not start it: {error.cause}"
            problem += "" if self._local else "; machines share the current folder, --out and the store"
        except errors.RayError:
            problem = "its worker was lost"
        return Ended(task.name, None, problem)

    def stop(self) -> None:
        """Leave the cluster, which ends its commands, and remove what a local one wrote."""
        self._ray.shutdown()
        deadline = time.monotonic() + _LAST_WORDS
        while self._folder is not None and self._folder.exists() and time.monotonic() < deadline:
            shutil.rmtree(self._folder, ignore_errors=True)  # processes that are ending may still write
            time.sleep(0.1)

    def _look_for_room(self, cpus: int, gpus: float) -> None:
        """Say that no machine is large enough, for which Ray itself would wait without a word."""
        if (cpus, gpus) in self._sizes:
            return
        self._sizes.add((cpus, gpus))
        machines = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        if any(machine.get("CPU", 0) >= cpus and machine.get("GPU", 0) >= gpus for machine in machines):
            return
        wanted = f"{cpus} CPUs and {gpus:g} GPUs"
        if self._local:
            found = sum(machine.get("GPU", 0) for machine in machines)
            raise ValueError(f"Expected {wanted} here, as 'resources' of the grid say, got {found:g} GPUs.")
        warnings.warn(f"No machine of the Ray cluster has {wanted}: runs that ask for them wait.", stacklevel=3)


def _set_variables(local: bool) -> None:
    """Set what Ray reads of the environment, unless the user has set it."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if local:  # its ports are open to the network, so Ray asks for a token, and would write one into HOME
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
        logging.getLogger("ray._private.authentication").setLevel(logging.ERROR)  # it would warn that it does
        for name, text in _SLOW.items():
            os.environ.setdefault(name, text)


def _make_folder() -> Path:
    place = tempfile.gettempdir()
    folder = Path(tempfile.mkdtemp(prefix="ray-", dir=place if len(place) < _LONGEST else "/tmp"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)  # after Ray has ended what a start that failed left
    return folder


@contextlib.contextmanager
def _own_signals() -> Iterator[None]:
    """Keep this process's answer to signals.

    ``ray.init`` replaces that to SIGTERM by an exit with the signal's number, and a wait in Ray gives an exit with 1
    for any `Stopped`.
    """
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    except SystemExit as stop:
        number = signal.SIGTERM if stop.code == signal.SIGTERM else received()
        if number is None or isinstance(stop, Stopped):
            raise
        raise Stopped(number) from None
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


def _settings(address: str | None, folder: Path | None) -> dict[str, Any]:
    """Settings that join a cluster, or start one of what this process may use, with no memory to speak of."""
    quiet: dict[str, Any] = {"log_to_driver": False, "configure_logging": False}
    if folder is None:
        return {"address": address, **quiet}
    return {
        "address": "local",
        "num_cpus": cpus_here(),
        "include_dashboard": False,
        "object_store_memory": 80 * 2**20,
        "_temp_dir": str(folder),
        "_plasma_directory": str(folder),
        **quiet,
    }
