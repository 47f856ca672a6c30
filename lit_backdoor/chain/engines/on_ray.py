"""Ray Core: tasks on one machine or a cluster. Ray moves command lines and exit codes, never tensors or results."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from typing import Any

from lit_backdoor.chain.engines.task import Ended, Task, run

__all__ = ["Ray"]


class Ray:
    """The engine that gives tasks to Ray, each with its CPUs and GPUs; retries are not Ray's business.

    Args:
        address: A running cluster (``auto`` or ``HOST:PORT``); None starts one on this machine, without dashboard,
            with its files in a temporary folder that is removed at the end.

    Raises:
        ValueError: If Ray is not installed, or there is no cluster at the address.
    """

    slots: int | None = None

    def __init__(self, address: str | None = None) -> None:
        local = address is None
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        if local:
            os.environ.setdefault("RAY_AUTH_MODE", "disabled")  # else Ray writes a token into HOME
        try:
            import ray
        except ImportError as error:
            raise ValueError(
                "Expected Ray to be installed for --engine ray, found none: pip install 'lit-backdoor[ray]'. "
                "--engine inline needs nothing."
            ) from error
        self._ray, self._running = ray, dict[Any, Task]()
        self._folder = tempfile.mkdtemp(prefix="ray-") if local else None
        try:
            ray.init(**_settings(address, self._folder))
        except (ConnectionError, RuntimeError, ValueError) as error:
            self._clean()
            raise ValueError(f"Could not reach Ray at address {address or 'local'}: {error}") from error
        self._run = ray.remote(max_retries=0)(run)

    def start(self, task: Task) -> None:
        """Give a task to Ray, which runs it where there is room."""
        options = self._run.options(num_cpus=task.cpus, num_gpus=task.gpus, name=task.name)
        self._running[options.remote(task)] = task

    def wait(self) -> Ended:
        """Wait until one of the tasks has ended."""
        ready: list[Any] = []
        while not ready:  # a short wait at a time, so that signals are heard
            ready, _ = self._ray.wait(list(self._running), num_returns=1, timeout=1)
        task = self._running.pop(ready[0])
        try:
            return Ended(task.name, self._ray.get(ready[0]))
        except self._ray.exceptions.RayError:  # its worker or its machine was lost
            return Ended(task.name, None)

    def stop(self) -> None:
        """Cancel what runs, leave the cluster, and remove what a local one wrote."""
        for reference in self._running:
            with contextlib.suppress(Exception):
                self._ray.cancel(reference, force=True)
        self._ray.shutdown()
        self._clean()

    def _clean(self) -> None:
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)


def _settings(address: str | None, folder: str | None) -> dict[str, Any]:
    """Settings that join a cluster, or start one of what this process may use, with no memory to speak of."""
    quiet: dict[str, Any] = {"log_to_driver": False, "configure_logging": False}
    if folder is None:
        return {"address": address, **quiet}
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "address": "local",
        "num_cpus": cpus,
        "include_dashboard": False,
        "object_store_memory": 80 * 2**20,
        "_temp_dir": folder,
        "_plasma_directory": folder,
        **quiet,
    }
