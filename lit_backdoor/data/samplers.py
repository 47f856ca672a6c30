"""Samplers that yield whole batches of positions, the same on every run, exact on any number of processes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DistributedSampler

__all__ = ["Draw", "ViewSampler", "derive_seed"]

_MASK = (1 << 64) - 1


def derive_seed(*numbers: int) -> int:
    """Mix integers into one seed in [0, 2**63), so that near inputs give unrelated generators (splitmix64)."""
    state = 0x9E3779B97F4A7C15
    for number in numbers:
        state = ((state ^ (number & _MASK)) + 0x9E3779B97F4A7C15) & _MASK
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _MASK
        state ^= state >> 31
    return state >> 1


class Draw(NamedTuple):
    """One process's share of one batch.

    Attributes:
        rows: Positions in the view, int64 ``[B]``.
        valid: False on rows that only pad the batch, bool ``[B]``.
        number: The batch's number in the epoch.
        seed: A pure function of the sampler's seed, the epoch, the number and the rank.
    """

    rows: Tensor
    valid: Tensor
    number: int
    seed: int


class ViewSampler(DistributedSampler[Any]):
    """Yields a `Draw` per batch; for ``DataLoader(dataset, sampler=…, batch_size=None)``.

    Subclasses torch's `DistributedSampler`, so that Lightning neither replaces nor wraps it and calls ``set_epoch``.
    The order is a pure function of (seed, epoch). Each global batch is a stretch of that order, dealt out evenly; where
    it does not divide, the last ranks repeat a row with ``valid`` False, so that over all ranks every row counts once.

    Args:
        length: Number of rows of the view.
        batch_size: Rows per process.
        shuffle: Whether the order changes with the epoch.
        drop_last: Leave out an incomplete last batch (one row breaks batch normalization), unless it is the only one.
        steps: Number of batches; None for one pass. Beyond one pass, further passes follow, shuffled anew.
        seed: Seed of the order and of the batches' seeds.
        num_replicas: Number of processes.
        rank: This process.

    Raises:
        ValueError: If there is no row, or a size is not positive.
    """

    def __init__(
        self,
        length: int,
        batch_size: int,
        *,
        shuffle: bool = False,
        drop_last: bool = False,
        steps: int | None = None,
        seed: int = 0,
        num_replicas: int = 1,
        rank: int = 0,
    ) -> None:
        if length < 1 or batch_size < 1:
            raise ValueError(
                f"Expected at least one row and a batch size of at least 1, got {length} and {batch_size}."
            )
        super().__init__(
            range(length),  # type: ignore[arg-type]
            num_replicas=num_replicas,
            rank=rank,
            shuffle=shuffle,
            seed=seed,
            drop_last=drop_last,
        )
        self.length = length
        self.batch_size = batch_size
        world_batch = batch_size * num_replicas
        self.steps_per_pass = max(length // world_batch, 1) if drop_last else -(-length // world_batch)
        self.steps = self.steps_per_pass if steps is None else steps
        self.start = 0

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[Draw]:
        """Draw the batches of the epoch; the next time only, from the batch ``start``."""
        start, self.start = self.start, 0
        world_batch = self.batch_size * self.num_replicas
        order = self._order(start // self.steps_per_pass)
        for number in range(start, self.steps):
            round_, step = divmod(number, self.steps_per_pass)
            if step == 0 and number > start:
                order = self._order(round_)
            rows, valid = self._share(order[step * world_batch : (step + 1) * world_batch])
            yield Draw(rows, valid, number, derive_seed(self.seed, self.epoch, number, self.rank))

    def _order(self, round_: int) -> Tensor:
        if not self.shuffle:
            return torch.arange(self.length)
        generator = torch.Generator().manual_seed(derive_seed(self.seed, self.epoch, round_))
        return torch.randperm(self.length, generator=generator)

    def _share(self, batch: Tensor) -> tuple[Tensor, Tensor]:
        """Take this rank's stretch of a global batch, all ranks' stretches equally long."""
        size = -(-len(batch) // self.num_replicas)
        rows = batch[self.rank * size : (self.rank + 1) * size]
        valid = torch.ones(size, dtype=torch.bool)
        if (missing := size - len(rows)) > 0:
            valid[len(rows) :] = False
            rows = torch.cat([rows, batch[:1].expand(missing)])
        return rows, valid
