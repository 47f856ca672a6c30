"""Who holds which training rows: the attacker's questioned set and the defender's root set."""

from __future__ import annotations

import warnings
from typing import NamedTuple

import torch
from torch import Tensor

from lit_backdoor.data.sources.base import Rows
from lit_backdoor.errors import check_share, unknown

__all__ = ["BalancedSplit", "Parts", "Split"]


class Parts(NamedTuple):
    """Positions in the source's train part, int64; disjoint."""

    questioned: Tensor
    root: Tensor


class Split:
    """Divides the source's train part: seeded, stratified by class, disjoint.

    The root set is the first rows of a pool that the seed fixes, so a smaller root set is a prefix of a larger
    one, and the questioned set does not depend on the root set's size.

    Args:
        train: Size of the questioned set; None takes all rows outside the pool.
        root_pool: Size of the pool that root sets are drawn from; 0 for no root set.
        root: Size of the root set; None takes the whole pool.
        group: Column of the source (a traffic sign's track, a patient) whose rows stay on one side.

    An int counts rows, a float is a share of the source's train part.

    Raises:
        ValueError: If a size is negative or a share outside (0, 1), or the root set exceeds its pool.
    """

    def __init__(
        self,
        train: int | float | None = None,
        root_pool: int | float = 0.1,
        root: int | float | None = None,
        group: str | None = None,
    ) -> None:
        self.train = None if train is None else _check_size("split.train", train)
        self.root_pool = _check_size("split.root_pool", root_pool)
        self.root = None if root is None else _check_size("split.root", root)
        self.group = group

    def assign(self, rows: Rows, num_classes: int, seed: int) -> Parts:
        """Give the questioned rows in the source's order and the root rows in the pool's.

        Warns where the root set holds no row of some class.

        Raises:
            ValueError: If the sizes do not fit the rows (says what is possible), or there is no such column.
        """
        total = len(rows)
        units = torch.arange(total)
        if self.group is not None:
            if self.group not in rows.columns:
                raise unknown("column for split.group", self.group, rows.columns)
            units = torch.unique(rows.columns[self.group], return_inverse=True)[1]
        order = _stratified_order(rows.labels, units, seed)
        candidates = self.candidates(rows, order)

        pool_size = _rows(self.root_pool, total)
        if pool_size > len(candidates):
            raise ValueError(
                f"Expected split.root_pool of at most the {len(candidates)} rows that may be in it, got {pool_size}."
            )
        root_size = pool_size if self.root is None else _rows(self.root, total)
        if root_size > pool_size:
            raise ValueError(
                f"Expected split.root to fit into split.root_pool, got {root_size} of {pool_size} rows. "
                f"Take a root of at most {pool_size} rows ({pool_size / total:.3g}), or a larger pool."
            )
        # a group that the cut goes through stays with the pool
        rest = order[~torch.isin(units[order], units[candidates[:pool_size]])]
        train_size = len(rest) if self.train is None else _rows(self.train, total)
        if not 0 < train_size <= len(rest):
            raise ValueError(
                f"Expected split.train from 1 to {len(rest)} rows ({total} in the source, {pool_size} in the root pool"
                f"{', groups kept whole' if self.group else ''}), got {train_size}."
            )
        root = candidates[:root_size]
        _warn_about_missing_classes(rows.labels[root], num_classes)
        return Parts(questioned=rest[:train_size].sort().values, root=root)

    def candidates(self, rows: Rows, order: Tensor) -> Tensor:
        """Give the rows that the pool is filled from, first ones first; here all, each class by its share.

        Args:
            rows: The source's train part.
            order: All rows in the seed's order, int64 ``[N]``.
        """
        return order


class BalancedSplit(Split):
    """A split whose root set has equally many rows of each class, and none that carries a semantic trigger.

    Rows that carry it are the attacker's: all of them are outside the pool. Where a class has no more rows, the others
    go on.

    Args:
        train: Size of the questioned set; None takes all rows outside the pool.
        root_pool: Size of the pool that root sets are drawn from: so many rows of each class times the classes.
        root: Size of the root set; None takes the whole pool.
        group: Column of the source whose rows stay on one side.
        root_without: Column of the source that is 0 or False in every row of the pool; None for any rows.
    """

    def __init__(
        self,
        train: int | float | None = None,
        root_pool: int | float = 0.1,
        root: int | float | None = None,
        group: str | None = None,
        root_without: str | None = None,
    ) -> None:
        super().__init__(train, root_pool, root, group)
        self.root_without = root_without

    def candidates(self, rows: Rows, order: Tensor) -> Tensor:
        """Give the rows without the column, the first of each class, the second of each class, and so on.

        Raises:
            ValueError: If there is no such column.
        """
        if self.root_without is not None:
            if self.root_without not in rows.columns:
                raise unknown("column for split.root_without", self.root_without, rows.columns)
            order = order[rows.columns[self.root_without][order] == 0]
        labels = rows.labels[order]
        by_class = labels.argsort(stable=True)
        sizes = torch.bincount(labels)
        turn = torch.empty_like(order)
        turn[by_class] = torch.arange(len(order)) - (sizes.cumsum(0) - sizes)[labels[by_class]]
        return order[turn.argsort(stable=True)]


def _check_size(name: str, size: int | float) -> int | float:
    if isinstance(size, float) and (size < 1 or not size.is_integer()):
        return check_share(name, size)
    size = int(size)  # a parser may have read rows as a float
    if size < 0:
        raise ValueError(f"Expected {name} to be a number of rows (0 or more) or a share in (0, 1), got {size}.")
    return size


def _rows(size: int | float, total: int) -> int:
    return round(size * total) if isinstance(size, float) else size


def _stratified_order(labels: Tensor, units: Tensor, seed: int) -> Tensor:
    """Order the rows so that every prefix has the classes' shares and the rows of a unit stand together.

    Each class's units are shuffled and spread evenly over [0, 1), from a random start; a unit's class is the
    smallest label in it.
    """
    generator = torch.Generator().manual_seed(seed)
    sizes = torch.bincount(units).double()
    unit_labels = torch.full((len(sizes),), torch.iinfo(torch.int64).max).scatter_reduce(0, units, labels, "amin")
    shuffled = torch.randperm(len(sizes), generator=generator)
    by_class = shuffled[unit_labels[shuffled].argsort(stable=True)]
    size, label = sizes[by_class], unit_labels[by_class]
    class_sizes = torch.bincount(label, weights=size)
    start = torch.rand(len(class_sizes), generator=generator, dtype=torch.float64)
    before = size.cumsum(0) - size - (class_sizes.cumsum(0) - class_sizes)[label]
    place = (before + start[label] * size) / class_sizes[label]
    rank = torch.empty(len(sizes), dtype=torch.int64)
    rank[by_class[place.argsort(stable=True)]] = torch.arange(len(sizes))
    return rank[units].argsort(stable=True)


def _warn_about_missing_classes(labels: Tensor, num_classes: int) -> None:
    missing = (torch.bincount(labels, minlength=num_classes)[:num_classes] == 0).nonzero().flatten().tolist()
    if len(labels) and missing:
        shown = ", ".join(map(str, missing[:10])) + (", …" if len(missing) > 10 else "")
        warnings.warn(f"The root set of {len(labels)} rows has none of {len(missing)} classes: {shown}.", stacklevel=3)
