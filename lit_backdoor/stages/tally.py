"""Training numbers of an epoch, which stay on the device until they are read together: each read waits for it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

__all__ = ["Tally"]

_SEVERAL = 50  # steps from one read to the next


class Tally:
    """Averages of training numbers over the images of an epoch, and the first loss among them that is not finite."""

    def __init__(self) -> None:
        self._waiting: list[tuple[int, int, dict[str, Tensor]]] = []
        self._sums: dict[str, np.float32] = {}
        self._counts: dict[str, int] = {}
        self.bad: tuple[int, float] | None = None  # step and value of the first loss that is not finite

    @property
    def full(self) -> bool:
        """Whether so many steps wait that they are to be read."""
        return len(self._waiting) >= _SEVERAL

    def add(self, step: int, count: int, values: Mapping[str, Tensor]) -> None:
        """Take in the numbers of a step.

        Args:
            step: Number of the step.
            count: Images of its batch.
            values: Scalars by name; ``loss`` is checked.
        """
        self._waiting.append((step, count, {name: value.detach() for name, value in values.items()}))

    def read(self) -> None:
        """Move what waits into the sums."""
        waiting, self._waiting = self._waiting, []
        flat = [value.float() for _, _, values in waiting for value in values.values()]
        read = iter(torch.stack(flat).cpu().numpy() if flat else ())
        for step, count, values in waiting:
            for name in values:
                value = next(read)
                # float32, one after the other, as torchmetrics adds them
                self._sums[name] = self._sums.get(name, np.float32(0)) + value * np.float32(count)
                self._counts[name] = self._counts.get(name, 0) + count
                if name == "loss" and self.bad is None and not np.isfinite(value):
                    self.bad = step, float(value)

    def means(self) -> dict[str, float]:
        """Give the averages by name, and begin anew."""
        self.read()
        found = {name: float(total / np.float32(self._counts[name])) for name, total in self._sums.items()}
        self._sums, self._counts = {}, {}
        return found
