"""The table of a method for its README, in Markdown: every seed, never a mean only."""

from __future__ import annotations

import re
import statistics
from collections import Counter
from collections.abc import Callable, Sequence

from lit_backdoor.board.cells import ASR, Cell, Setup, setups
from lit_backdoor.board.rows import CLEAN, Row
from lit_backdoor.board.sections.summary import lines, own_seconds
from lit_backdoor.page.words import DASH, duration

__all__ = ["fill", "headline", "method_table"]

_HEADS = (
    "attack", "seeds", "ASR before", "ASR after", "median", f"at most {ASR.most:g}", "ACC before", "ACC after",
    "ACC, target class", "fine-tuning: ACC / ASR", "paper: ACC / ASR",
)  # fmt: skip


def method_table(rows: Sequence[Row], defense: str, setup: str | None = None) -> str:
    """Write a defense's table: a line per attack, each seed's value in the order of seeds, and what made them.

    Args:
        rows: Rows, of which those of the defense count.
        defense: Its name.
        setup: A setup; by default every one that has rows of the defense, each with its own table.

    Raises:
        ValueError: If there are no such rows.
    """
    found = [own for own in setups([row for row in rows if row.defense.name == defense]) if setup in (None, own.name)]
    if not found:
        where = f" in setup '{setup}'" if setup else ""
        raise ValueError(f"Expected rows of the defense '{defense}'{where}, found none.")
    return "\n\n".join(_table(own, defense) for own in found)


def headline(rows: Sequence[Row], setup: str) -> str:
    """Write a line per defense of a setup, the best mean rank first, as the board's summary does.

    Raises:
        ValueError: If there are no such rows.
    """
    found = [own for own in setups(rows) if own.name == setup]
    if not found:
        raise ValueError(f"Expected rows of the setup '{setup}', found none.")
    heads = ("defense", "data", "mean rank", "reached", "ACC drop", "clean model", "relapse", "time", "memory")
    table = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for line in lines(found[0]):
        rank = DASH if line["rank"] is None else f"{line['rank']} ({line['rank_note']})"
        cells = [f"`{_plain(line['name'])}`", ", ".join(line["notes"]) or DASH, rank]
        cells += [line[key] for key in ("reached", "drop", "harm")]
        table.append("| " + " | ".join([*cells, " → ".join(line["relapse"]), line["seconds"], line["memory"]]) + " |")
    return "\n".join([*table, "", _made_with(found[0])])


def fill(text: str, rows: Sequence[Row]) -> str:
    """Write tables between their marks in a file's text.

    ``<!-- table:DEFENSE[@SETUP] -->`` to ``<!-- /table -->`` gets a `method_table`, ``<!-- headline:SETUP -->`` to
    ``<!-- /headline -->`` a `headline`.
    """

    def table(match: re.Match[str]) -> str:
        defense, setup = match["defense"], match["setup"]
        return f"{match['head']}\n{method_table(rows, defense, setup)}\n<!-- /table -->"

    pattern = r"(?P<head><!-- table:(?P<defense>[\w./+-]+)(?:@(?P<setup>[\w.-]+))? -->)\n.*?<!-- /table -->"
    text = re.sub(pattern, table, text, flags=re.DOTALL)
    pattern = r"(<!-- headline:([\w.-]+) -->)\n.*?<!-- /headline -->"
    head = "{}\n{}\n<!-- /headline -->"
    return re.sub(pattern, lambda found: head.format(found[1], headline(rows, found[2])), text, flags=re.DOTALL)


def _table(setup: Setup, defense: str) -> str:
    lines = ["| " + " | ".join(_HEADS) + " |", "|" + "---|" * len(_HEADS)]
    lines += ["| " + " | ".join(_line(setup.cell(attack, defense))) + " |" for attack in setup.attacks]
    return "\n".join([*lines, "", _made_with(setup)])


def _line(cell: Cell) -> list[str]:
    rows = [row for row in cell.rows if row.status == "done"]
    spread, measured = cell.spread(ASR), cell.measured(ASR)
    name = "clean model" if cell.attack == CLEAN else _plain(cell.attack)
    missing = [
        f"{row.seed} ({'not run' if row.status == 'missing' else row.status})" for row in cell.rows if row not in rows
    ]
    paper = next((row.reported for row in rows if row.reported), None)
    return [
        name,
        ", ".join([*(str(row.seed) for row in rows), *missing]),
        _each(rows, lambda row: row.before.asr),
        _each(rows, lambda row: row.after.asr),
        DASH if spread.median is None else f"{spread.median:.3f}",
        f"{cell.below(ASR)} of {len(measured)}" if measured else "did not take" if cell.untaken else DASH,
        _each(rows, lambda row: row.before.acc),
        _each(rows, lambda row: row.after.acc),
        _each(rows, lambda row: row.after.acc_target),
        f"{_each(rows, lambda row: row.control.acc)} / {_each(rows, lambda row: row.control.asr)}",
        DASH
        if paper is None
        else f"{_number(paper.value.get('acc'))} / {_number(paper.value.get('asr'))} ({_plain(paper.source)})",
    ]


def _each(rows: Sequence[Row], take: Callable[[Row], float | None]) -> str:
    values = [take(row) for row in rows]
    return ", ".join(map(_number, values)) if any(value is not None for value in values) else DASH


def _number(value: float | None) -> str:
    return DASH if value is None else f"{value:.3f}"


def _made_with(setup: Setup) -> str:
    done = [row for row in setup.rows if row.status == "done"]
    seconds = [value for row in done if (value := own_seconds(row)) is not None]
    commits = Counter(f"{row.code.commit}{' (dirty)' if row.code.dirty else ''}" for row in done if row.code.commit)
    parts = [f"Setup `{_plain(setup.name)}`", *(f"`{row.command}`" for row in done[:1] if row.command)]
    parts += [f"commit {', '.join(commits)}"] if commits else []
    parts += sorted({row.env.device for row in done if row.env.device})
    parts += [f"{duration(statistics.median(seconds))} (median of the defense's own stages)"] if seconds else []
    parts += sorted({flag for row in done for flag in row.flags})
    return "; ".join(parts) + "."


def _plain(text: str) -> str:
    return text.replace("|", r"\|").replace("\n", " ").replace("<", "&lt;")
