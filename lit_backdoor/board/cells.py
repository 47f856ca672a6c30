"""Cells of a board: the rows of one setup, attack and defense, and how their numbers spread over seeds."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from lit_backdoor.board.rows import CLEAN, Defense, Row

__all__ = ["ACC_DROP", "ASR", "Cell", "Measure", "Setup", "Spread", "setups"]


@dataclass(frozen=True)
class Measure:
    """A number of a row that lower is better for.

    Attributes:
        name: Its short name.
        title: Its written name.
        value: Takes it from a row.
        most: The largest value that counts as reached, where a row has no goal.
        low: Low end of its scale.
        high: High end of its scale.
    """

    name: str
    title: str
    value: Callable[[Row], float | None]
    most: float
    low: float
    high: float

    def limit(self, row: Row) -> float:
        """Give the largest value of a row that counts as reached."""
        own = getattr(row.goal, self.name) if row.goal else None
        return self.most if own is None else float(own)


ASR = Measure("asr", "ASR", lambda row: row.after.asr, 0.10, 0.0, 1.0)
ACC_DROP = Measure("acc_drop", "ACC drop", lambda row: row.acc_drop, 0.05, -0.05, 0.25)
_DEVELOPMENT = ", development"  # behind the name of a setup


@dataclass(frozen=True)
class Spread:
    """Values over seeds; statistics exist from one value on, deviation from two."""

    values: tuple[float, ...]

    @property
    def median(self) -> float | None:
        """The median."""
        return statistics.median(self.values) if self.values else None

    @property
    def mean(self) -> float | None:
        """The mean."""
        return statistics.fmean(self.values) if self.values else None

    @property
    def deviation(self) -> float | None:
        """The sample standard deviation."""
        return statistics.stdev(self.values) if len(self.values) > 1 else None

    @property
    def ends(self) -> tuple[float, float] | None:
        """The smallest and the largest value."""
        return (min(self.values), max(self.values)) if self.values else None


@dataclass(frozen=True)
class Cell:
    """The rows of one attack and one defense in one setup, by seed."""

    attack: str
    defense: str
    rows: tuple[Row, ...]

    def measured(self, measure: Measure) -> list[tuple[Row, float]]:
        """Give the rows that count, with their values: finished, and of an attack that took hold (or a clean model)."""
        counting = [row for row in self.rows if row.status == "done" and (row.took or row.clean_model)]
        pairs = [(row, measure.value(row)) for row in counting]
        return [(row, value) for row, value in pairs if value is not None]

    def spread(self, measure: Measure) -> Spread:
        """Give the values that count."""
        return Spread(tuple(value for _, value in self.measured(measure)))

    def below(self, measure: Measure) -> int:
        """Count the rows that reach the limit."""
        return sum(value <= measure.limit(row) for row, value in self.measured(measure))

    def count(self, *statuses: str) -> int:
        """Count the rows of some statuses."""
        return sum(row.status in statuses for row in self.rows)

    @property
    def untaken(self) -> tuple[Row, ...]:
        """The finished rows whose attack did not take hold."""
        done = (row for row in self.rows if row.status == "done" and not row.clean_model)
        return tuple(row for row in done if row.before.asr is not None and not row.took)

    @property
    def emptied(self) -> float | None:
        """The median drop of accuracy on the attacker's class: a net without that class has no ASR."""
        pairs = [(row.before.acc_target, row.after.acc_target) for row, _ in self.measured(ASR)]
        drops = [first - last for first, last in pairs if first is not None and last is not None]
        return statistics.median(drops) if drops else None

    @property
    def as_control(self) -> bool:
        """Whether plain fine-tuning does as well in most of its rows, so that they show nothing."""
        rows = [row for row, _ in self.measured(ASR) if None not in (row.control.asr, row.control.acc, row.after.acc)]
        return bool(rows) and 2 * sum(_as_well(row) for row in rows) > len(rows)


def _as_well(row: Row) -> bool:
    asr, acc = row.control.asr, row.control.acc
    own = (row.after.asr, row.after.acc)
    if asr is None or acc is None or own[0] is None or own[1] is None:
        return False
    return asr <= max(own[0], ASR.limit(row)) and acc >= own[1] - 0.02


@dataclass(frozen=True)
class Setup:
    """All rows of a setup as a table: attacks and defenses in order of appearance, a clean model last."""

    name: str
    rows: tuple[Row, ...]

    @property
    def plain_name(self) -> str:
        """Its name in rows."""
        return self.name.removesuffix(_DEVELOPMENT)

    @cached_property
    def attacks(self) -> list[str]:
        """Names of the attacks."""
        names = dict.fromkeys(row.attack.name for row in self.rows)
        return [*(name for name in names if name != CLEAN), *(name for name in names if name == CLEAN)]

    @cached_property
    def defenses(self) -> list[str]:
        """Names of the defenses."""
        return list(dict.fromkeys(row.defense.name for row in self.rows))

    @property
    def seeds(self) -> list[int]:
        """Seeds of the rows."""
        return sorted({row.seed for row in self.rows})

    def of(self, defense: str) -> tuple[Row, ...]:
        """Give the rows of a defense."""
        return tuple(row for row in self.rows if row.defense.name == defense)

    def about(self, defense: str) -> Defense:
        """Describe a defense; rows that never ran may not know what it is given."""
        rows = self.of(defense)
        return next((row.defense for row in rows if row.defense.access), rows[0].defense)

    def cell(self, attack: str, defense: str) -> Cell:
        """Give a cell, which has no rows where nothing was planned."""
        mine = self._rows.get((attack, defense), [])
        return Cell(attack, defense, tuple(sorted(mine, key=lambda row: row.seed)))

    @cached_property
    def _rows(self) -> dict[tuple[str, str], list[Row]]:
        found: dict[tuple[str, str], list[Row]] = defaultdict(list)
        for row in self.rows:
            found[row.attack.name, row.defense.name].append(row)
        return dict(found)

    def cells(self, defense: str) -> list[Cell]:
        """Give the cells of a defense with rows, clean models left out."""
        found = [self.cell(attack, defense) for attack in self.attacks if attack != CLEAN]
        return [cell for cell in found if cell.rows]


def setups(rows: Sequence[Row]) -> list[Setup]:
    """Sort rows by setup, in order of appearance; rows that were tuned on are told apart from those that were not."""
    rows = _development_apart(_told_apart(rows))
    names = dict.fromkeys(row.setup for row in rows)
    return [Setup(name, tuple(row for row in rows if row.setup == name)) for name in names]


def _development_apart(rows: Sequence[Row]) -> list[Row]:
    """Make a setup of their own of development rows, behind the other rows, if a setup has both."""
    tested = {row.setup for row in rows if "development" not in row.flags}
    apart = [row for row in rows if "development" in row.flags and row.setup in tested]
    return [
        *(row for row in rows if "development" not in row.flags or row.setup not in tested),
        *(replace(row, setup=row.setup + _DEVELOPMENT) for row in apart),
    ]


def _told_apart(rows: Sequence[Row]) -> list[Row]:
    """Write what differs from its configuration behind a defense's name, where the rows differ in that."""
    found = defaultdict(set)
    for row in rows:
        found[row.setup, row.defense.name].add(_settings(row))
    several = {key for key, settings in found.items() if len(settings) > 1}
    return [
        replace(row, defense=replace(row.defense, name=f"{row.defense.name} {_settings(row)}".strip()))
        if (row.setup, row.defense.name) in several
        else row
        for row in rows
    ]


def _settings(row: Row) -> str:
    return ", ".join(f"{key.rpartition('.')[2]}={value}" for key, value in sorted(row.defense.params.items()))
