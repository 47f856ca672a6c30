"""Running the nodes of a grid: what is ready goes to the engine, what failed blocks what needs it, the rest goes on."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from lit_backdoor.chain.engines.task import Ended, Engine, Task, cpus_here, last_line
from lit_backdoor.chain.folders import finished
from lit_backdoor.chain.grid.graph import Node
from lit_backdoor.chain.store import Store

__all__ = ["Driver", "task_of"]

_WRONG_INPUT = 2  # the exit code of a mistake, which another try would only repeat


class Driver:
    """Runs nodes by an engine.

    Args:
        nodes: The nodes that are wanted, each after those that it needs.
        out: The grid's folder.
        store: Where results are looked for: an engine's word is not enough.
        retries: How often a node that failed is tried again.
        say: Called with a line at each change, and with the number of nodes that are over.

    Attributes:
        failed: Why nodes failed, or by which other node they are blocked, by name.
    """

    def __init__(
        self, nodes: Iterable[Node], out: Path, store: Store, retries: int, say: Callable[[str, int], None]
    ) -> None:
        self.nodes, self.out, self.store, self.retries, self.say = list(nodes), out, store, retries, say
        self.failed: dict[str, str] = {}
        self._tries: dict[str, int] = {}
        self._done: set[str] = set()

    def run(self, engine: Engine) -> None:
        """Run all nodes; returns when each is made, failed or blocked."""
        waiting, running = list(self.nodes), dict[str, tuple[Node, float]]()
        names = {node.name for node in waiting}
        while waiting or running:
            for node in list(waiting):
                missing = [name for name in node.needs if name in names and name not in self._done]
                if lost := next((name for name in missing if name in self.failed), None):
                    waiting.remove(node)
                    self.failed[node.name] = f"blocked by {lost}"
                    self._tell(node, self.failed[node.name])
                elif not missing and (engine.slots is None or len(running) < engine.slots):
                    waiting.remove(node)
                    running[node.name] = (node, time.monotonic())
                    self._start(node, engine)
            if running:
                ended = engine.wait()
                node, started = running.pop(ended.name)
                if self._judge(node, ended, time.monotonic() - started):
                    waiting.insert(0, node)

    def _start(self, node: Node, engine: Engine) -> None:
        self._tries[node.name] = self._tries.get(node.name, 0) + 1
        again = "" if self._tries[node.name] == 1 else f" again (try {self._tries[node.name]})"
        self._tell(node, f"started{again}")
        engine.start(task_of(node, self.out, self.store))

    def _judge(self, node: Node, ended: Ended, seconds: float) -> bool:
        """Note how a node ended; says whether it is to be tried again."""
        problem = self._problem(node)
        if problem is None:
            self._done.add(node.name)
            if node.stage is not None:  # its bundle is in the store
                shutil.rmtree(node.folder(self.out), ignore_errors=True)
            self._tell(node, f"done in {seconds:.0f} s")
            return False
        log = _log(node, self.out)
        if ended.code is None:
            problem = ended.problem
        elif ended.code:
            problem = f"exit code {ended.code}: {last_line(log)}"
        if ended.code != _WRONG_INPUT and self._tries[node.name] <= self.retries:
            self._tell(node, f"failed, {problem}")
            return True
        self.failed[node.name] = problem
        self._tell(node, f"failed, {problem} (log: {log})")
        return False

    def _problem(self, node: Node) -> str | None:
        """Check that what a node was to make is there and whole; gives what is not."""
        if node.stage is not None:
            key = self.store.key_of(node.identity)
            whole = key is not None and finished(self.store.bundle(key), key) is not None
            return None if whole else "it left no whole bundle in the store"
        try:
            stages = json.loads((node.folder(self.out) / "results.json").read_text())["stages"]
            broken = [s["name"] for s in stages if finished(node.folder(self.out) / s["bundle"], s["key"]) is None]
        except (OSError, ValueError, KeyError, TypeError):
            return "it left no results.json"
        if broken:
            return f"the bundle of its stage '{broken[0]}' is not whole"
        return None if node.is_made(self.out, self.store) else "its results.json is of other settings"

    def _tell(self, node: Node, what: str) -> None:
        over = len(self._done) + len(self.failed)
        self.say(f"[{over}/{len(self.nodes)}] {node.name}: {what}", over)


def task_of(node: Node, out: Path, store: Store) -> Task:
    """Give the command line of a node to an engine."""
    asked = os.environ.get("OMP_NUM_THREADS", "")
    cpus = node.cell.cpus or (int(asked) if asked.isdigit() and int(asked) else cpus_here())
    ours = {key: text for key, text in os.environ.items() if key.startswith("LIT_BACKDOOR_") or key == "PYTHONPATH"}
    variables = {**ours, "LIT_BACKDOOR_CACHE": str(store.folder.absolute())}  # other machines have none of them
    words = tuple(node.command(out.absolute()))
    return Task(node.name, words, _log(node, out.absolute()), Path.cwd(), cpus, node.cell.gpus, variables)


def _log(node: Node, out: Path) -> Path:
    return out / "logs" / f"{node.name}.log"
