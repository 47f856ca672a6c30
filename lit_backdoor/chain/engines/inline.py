"""One command after another, on this machine: nothing to install."""

from __future__ import annotations

from lit_backdoor.chain.engines.task import Ended, Task, run

__all__ = ["Inline"]


class Inline:
    """The engine that runs one task at a time."""

    slots: int | None = 1

    def __init__(self) -> None:
        self._task: Task | None = None

    def start(self, task: Task) -> None:
        """Take a task; it runs when `wait` is called."""
        self._task = task

    def wait(self) -> Ended:
        """Run the task."""
        task, self._task = self._task, None
        assert task is not None
        return Ended(task.name, run(task))

    def stop(self) -> None:
        """Nothing runs between two calls."""
