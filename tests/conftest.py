"""A pool of two gloo processes for the whole session, started by the first test that asks for it."""

from __future__ import annotations

import contextlib
import datetime
import multiprocessing
import os
import pickle
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:
    # Started processes import a test's module as tests.…; last, so that an installed wheel wins.
    sys.path.append(str(ROOT))
RunDDP = Callable[..., list[Any]]
torch.set_num_threads(1)  # tiny nets gain nothing from more, and lose much where cores are shared
os.environ.setdefault("OMP_NUM_THREADS", "1")  # in commands that tests start


def _serve(rank: int, world_size: int, rendezvous: str, pipe: Connection) -> None:
    torch.set_num_threads(1)
    timeout = datetime.timedelta(seconds=60)
    dist.init_process_group("gloo", f"file://{rendezvous}", timeout, world_size=world_size, rank=rank)
    while task := pipe.recv_bytes():
        try:
            path, payload = pickle.loads(task)
            sys.path[:] = path  # the test's module must be importable here as there
            function, args = pickle.loads(payload)
            answer = (True, pickle.dumps(function(rank, world_size, *args)))
        except BaseException:
            answer = (False, traceback.format_exc())
        pipe.send_bytes(pickle.dumps(answer))
    dist.destroy_process_group()


class Pool:
    """Processes of one gloo group; a test that fails in one of them ends them all, and the next test starts anew."""

    def __init__(self, world_size: int = 2) -> None:
        self.world_size = world_size
        self.processes: list[Any] = []
        self.pipes: list[Connection] = []

    def start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.folder = tempfile.TemporaryDirectory()
        rendezvous = str(Path(self.folder.name) / "rendezvous")
        for rank in range(self.world_size):
            here, there = context.Pipe()
            process = context.Process(target=_serve, args=(rank, self.world_size, rendezvous, there), daemon=True)
            process.start()
            there.close()
            self.processes.append(process)
            self.pipes.append(here)

    def run(self, function: Callable[..., Any], *args: Any, timeout: float = 120) -> list[Any]:
        if not self.processes:
            self.start()
        task = pickle.dumps((sys.path, pickle.dumps((function, args))))
        deadline = time.monotonic() + timeout
        results = []
        try:
            for pipe in self.pipes:
                pipe.send_bytes(task)
            waiting = dict(enumerate(self.pipes))
            answers: dict[int, Any] = {}
            while waiting:
                for rank, pipe in list(waiting.items()):
                    if pipe.poll(0.02):
                        good, answer = pickle.loads(self.receive(rank, pipe))
                        assert good, f"rank {rank} failed:\n{answer}"
                        answers[rank] = pickle.loads(answer)
                        del waiting[rank]
                assert time.monotonic() < deadline, f"ranks {sorted(waiting)} did not answer within {timeout} s"
            results = [answers[rank] for rank in range(self.world_size)]
        except BaseException:
            self.kill()
            raise
        return results

    def receive(self, rank: int, pipe: Connection) -> bytes:
        try:
            return pipe.recv_bytes()
        except EOFError as error:
            raise AssertionError(f"rank {rank} died; what it said is in the captured stderr") from error

    def kill(self) -> None:
        for process in self.processes:
            process.kill()
            process.join()
        if self.processes:
            self.folder.cleanup()
        self.processes, self.pipes = [], []

    def close(self) -> None:
        for pipe in self.pipes:
            with contextlib.suppress(OSError):
                pipe.send_bytes(b"")
        for process in self.processes:
            process.join(10)
        self.kill()


@pytest.fixture(scope="session")
def run_ddp() -> Iterator[RunDDP]:
    """Call ``run_ddp(function, *args)``: ``function(rank, world_size, *args)`` in both processes, results by rank.

    The function must stand at the top level of its module, and arguments and results must be picklable.
    """
    pool = Pool()
    yield pool.run
    pool.close()
