"""The row of a benchmark: what is known of one cell of a grid (setup, attack, defense) under one seed.

Rows are JSON Lines. Shares are in [0, 1]; a number that does not exist is null.
"""

from __future__ import annotations

import gzip
import json
import math
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from lit_backdoor.board.reading import parse

__all__ = [
    "SCHEMA", "Attack", "Code", "Dataset", "Defense", "Detection", "Env", "Goal", "Model", "Numbers", "Relapse",
    "Reported", "Row", "read_rows", "write_rows",
]  # fmt: skip

SCHEMA = 1
_LONGEST = 2**24  # bytes of a row; one of a thousand classes has a hundredth of that
TOOK = 0.8  # share of the highest possible ASR from which an attack took hold
CLEAN = "null"  # the attack of a clean model


@dataclass(frozen=True)
class Code:
    """The code that made a row; ``dirty`` where files differed from the commit."""

    version: str | None = None
    commit: str | None = None
    dirty: bool | None = None


@dataclass(frozen=True)
class Env:
    """Versions and hardware; ``device`` is the model of the CPU or GPU."""

    torch: str | None = None
    lightning: str | None = None
    python: str | None = None
    device: str | None = None
    precision: str | None = None
    threads: int | None = None


@dataclass(frozen=True)
class Dataset:
    """The data: number of questioned and of root images, and the seed of the split."""

    name: str | None = None
    revision: str | None = None
    n_train: int | None = None
    n_root: int | None = None
    split_seed: int | None = None


@dataclass(frozen=True)
class Model:
    """The victim's net and its number of parameters."""

    name: str | None = None
    params: int | None = None


@dataclass(frozen=True)
class Attack:
    """The attack; ``name`` is ``null`` for a clean model.

    Attributes:
        name: Its configuration.
        trigger: Class of the trigger.
        policy: Class of the label policy.
        rate: Poisoning rate, a share of ``rate_of``.
        rate_of: ``set`` (the questioned set), ``target`` (its class) or ``carriers``.
        target: The attacker's label; null where there is no single one.
        params: What differs from the configuration.
    """

    name: str
    trigger: str | None = None
    policy: str | None = None
    rate: float | None = None
    rate_of: str | None = None
    target: int | None = None
    params: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Defense:
    """The defense.

    Attributes:
        name: Its configuration.
        access: What it is given: ``none``, ``root``, ``questioned`` or ``both`` sets.
        selection: What its choices saw: ``none``, ``root`` or ``oracle``.
        target: Whether the attacker's class was ``given``, ``detected`` or not used (``none``).
        params: What differs from the configuration.
    """

    name: str
    access: Literal["none", "root", "questioned", "both"] | None = None
    selection: Literal["none", "root", "oracle"] | None = None
    target: Literal["given", "detected", "none"] | None = None
    params: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Numbers:
    """ACC (of the attacker's class as well), ASR and RA on ``n`` clean and ``n_triggered`` triggered test images."""

    acc: float | None = None
    acc_target: float | None = None
    asr: float | None = None
    ra: float | None = None
    n: int | None = None
    n_triggered: int | None = None

    def __post_init__(self) -> None:
        for name in ("acc", "acc_target", "asr", "ra"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise ValueError(f"Expected {name} as a share in [0, 1] or null, got {value}.")


@dataclass(frozen=True)
class Detection:
    """What a detector says of the model.

    Attributes:
        score: Higher is more suspicious.
        probability: That the model carries a backdoor; null where the detector gives none.
        flagged: Its decision.
        top: The class it suspects most, flagged or not.
        found: Whether it flagged exactly the attacker's class.
    """

    score: float | None = None
    probability: float | None = None
    flagged: bool | None = None
    top: int | None = None
    found: bool | None = None

    def __post_init__(self) -> None:
        if self.probability is not None and not 0 <= self.probability <= 1:
            raise ValueError(f"Expected detection.probability in [0, 1] or null, got {self.probability}.")


@dataclass(frozen=True)
class Relapse:
    """ASR after the cleaned suspect is fine-tuned on clean root data, and on five poisoned samples."""

    clean: float | None = None
    poisoned: float | None = None


@dataclass(frozen=True)
class Reported:
    """Numbers of the paper, and where they are printed."""

    value: dict[str, float | None]
    source: str


@dataclass(frozen=True)
class Goal:
    """The largest ASR and the largest ACC drop that count as reached."""

    asr: float | None = None
    acc_drop: float | None = None


@dataclass(frozen=True)
class Row:
    """One cell and seed.

    Attributes:
        setup: Data, net and training of the victim, by name.
        attack: The attack.
        defense: The defense.
        seed: Seed of the run.
        schema: Version of this format.
        id: Hash of the chain's whole configuration.
        status: ``done``, ``failed``, ``blocked`` (something it needs failed) or ``missing`` (not run).
        error: Why it failed, in one line.
        command: The command line that repeats it.
        code: The code.
        env: Versions and hardware.
        dataset: The data.
        model: The victim's net.
        before: Numbers of the suspect.
        after: Numbers after the defense.
        control: Numbers after plain fine-tuning with the defense's steps and learning rate.
        der: Defense effectiveness rating.
        dem: Defense efficacy measure.
        detection: What its detector says of the model.
        relapse: ASR after further fine-tuning.
        seconds: Of each stage, in the run that made it.
        peak_mb: Peak memory in MB.
        reported: The paper's numbers.
        goal: What counts as reached.
        metrics: Every other number, by stage.
        flags: Remarks such as ``development``.
    """

    setup: str
    attack: Attack
    defense: Defense
    seed: int
    schema: int = SCHEMA
    id: str | None = None
    status: Literal["done", "failed", "blocked", "missing"] = "done"
    error: str | None = None
    command: str | None = None
    code: Code = Code()
    env: Env = Env()
    dataset: Dataset = Dataset()
    model: Model = Model()
    before: Numbers = Numbers()
    after: Numbers = Numbers()
    control: Numbers = Numbers()
    der: float | None = None
    dem: float | None = None
    detection: Detection | None = None
    relapse: Relapse = Relapse()
    seconds: dict[str, float | None] = field(default_factory=dict)
    peak_mb: float | None = None
    reported: Reported | None = None
    goal: Goal | None = None
    metrics: dict[str, dict[str, Any]] = field(default_factory=dict)
    flags: tuple[str, ...] = ()

    @property
    def clean_model(self) -> bool:
        """Whether the model has no backdoor."""
        return self.attack.name == CLEAN

    @property
    def took(self) -> bool:
        """Whether the attack took hold, so that there is something to remove; from all to all ASR is at most ACC."""
        most = self.before.acc if self.attack.policy == "AllToAll" else 1.0
        return self.before.asr is not None and self.before.asr >= TOOK * (1.0 if most is None else most)

    @property
    def acc_drop(self) -> float | None:
        """ACC before less ACC after."""
        return None if self.before.acc is None or self.after.acc is None else self.before.acc - self.after.acc

    @property
    def reached(self) -> bool | None:
        """Whether the goal was reached; None without a goal or without the numbers that it is about."""
        if self.goal is None:
            return None
        pairs = [(self.after.asr, self.goal.asr), (self.acc_drop, self.goal.acc_drop)]
        wanted = [(value, most) for value, most in pairs if most is not None]
        if not wanted or any(value is None for value, _ in wanted):
            return None
        return all(value is not None and value <= most for value, most in wanted)

    @classmethod
    def parse(cls, record: Mapping[str, Any]) -> Row:
        """Build a row from a JSON object.

        Raises:
            ValueError: If a key is unknown or missing, a value has another type, or the schema is newer.
        """
        schema = record.get("schema", SCHEMA) if isinstance(record, Mapping) else SCHEMA
        if isinstance(schema, int) and schema > SCHEMA:
            raise ValueError(
                f"Expected a row of schema {SCHEMA} or older, got schema {schema}. Install a newer lit_backdoor: "
                "pip install -U lit_backdoor."
            )
        return parse(cls, record, "row")

    def record(self) -> dict[str, Any]:
        """Give the row as a JSON object; numbers that are not finite become null."""
        return dict(_finite(asdict(self)))


def read_rows(file: Path) -> list[Row]:
    """Read rows from JSON Lines, also compressed (``.gz``); NaN and infinities are null.

    Raises:
        ValueError: If a line is no row; the message names file and line.
    """
    rows = []
    for number, line in enumerate(_lines(file), 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line, parse_constant=lambda _: None)
            rows.append(Row.parse(record))
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{file}, line {number}: {error}") from None
    return rows


def _lines(file: Path) -> Iterator[bytes]:
    """Read lines, none of which is longer than a row may be, also of a file that unpacks to far more."""
    try:
        with file.open("rb") as packed, gzip.open(packed) if file.suffix == ".gz" else packed as lines:
            while line := lines.readline(_LONGEST):
                if len(line) == _LONGEST:
                    raise ValueError(f"Expected lines of at most {_LONGEST:,} bytes in {file}, got a longer one.")
                yield line
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(
            f"{file} is damaged or was cut off, and cannot be unpacked ({error}). Pack it anew."
        ) from error


def write_rows(rows: Iterable[Row], file: Path) -> None:
    """Write rows as JSON Lines, one row a line, in place of what the file held."""
    text = "".join(json.dumps(row.record(), allow_nan=False, ensure_ascii=False) + "\n" for row in rows)
    part = file.with_name(f".{file.name}.part")
    part.write_text(text, encoding="utf-8", errors="backslashreplace")
    part.replace(file)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list | tuple) else value
