"""Tables for READMEs, in Markdown: every seed, never a mean only."""

from __future__ import annotations

import re
import statistics
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial

from lit_backdoor.board.cells import ASR, Cell, Setup, setups
from lit_backdoor.board.rows import CLEAN, Row
from lit_backdoor.board.sections.summary import lines, own_seconds
from lit_backdoor.page.words import DASH, duration

__all__ = ["detection_table", "fill", "headline", "method_table", "numbers_table"]

_HEADS = (
    "attack", "seeds", "ASR before", "ASR after", "median", f"at most {ASR.most:g}", "ACC before", "ACC after",
    "ACC, target class", "RA after", "fine-tuning: ACC / ASR", "paper: ACC / ASR",
)  # fmt: skip
_MOST_COMMITS = 3  # that a caption names


def method_table(rows: Sequence[Row], defense: str | Sequence[str], setup: str | None = None) -> str:
    """Write a defense's table: a line per attack, each seed's value in the order of seeds, and what made them.

    Args:
        rows: Rows, of which those of the defense count.
        defense: Its name; several share a table, each line under its own name.
        setup: A setup; by default every one that has rows of the defense, each with its own table.

    Raises:
        ValueError: If there are no such rows.
    """
    names = _names(defense)
    heads = _HEADS if len(names) == 1 else ("defense", *_HEADS)
    tables = []
    for own in _chosen(rows, names, setup):
        cells = [own.cell(attack, name) for name in own.defenses for attack in own.attacks]
        lines = [(cell.defense, _line(cell)) for cell in cells if cell.rows]
        written = [line if len(names) == 1 else [f"`{_plain(name)}`", *line] for name, line in lines]
        tables.append(_written(heads, written, own))
    return "\n\n".join(tables)


def numbers_table(rows: Sequence[Row], defense: str | Sequence[str], metrics: Sequence[str], setup: str | None) -> str:
    """Write further numbers of a defense: a line per attack, each seed's value in the order of seeds.

    Args:
        rows: Rows, of which those of the defense count.
        defense: Its name, or several.
        metrics: ``STAGE.METRIC`` as in `Row.metrics`, a column each.
        setup: A setup; by default every one that has rows of the defense.

    Raises:
        ValueError: If there are no such rows, or none has a metric.
    """
    names = _names(defense)
    heads = (
        *(("defense",) if len(names) > 1 else ()),
        "attack",
        "seeds",
        *(name.replace("_", " ") for name in metrics),
    )
    chosen = _chosen(rows, names, setup)
    for metric in metrics:
        if all(_metric(row, metric) is None for own in chosen for row in own.rows):
            raise ValueError(f"Expected numbers {metric} in rows of {', '.join(names)}, found none.")
    tables = []
    for own in chosen:
        cells = [own.cell(attack, name) for name in own.defenses for attack in own.attacks]
        lines = []
        for cell in cells:
            done = [row for row in cell.rows if row.status == "done"]
            values = [_each(done, partial(_metric, name=metric)) for metric in metrics]
            if any(value != DASH for value in values):
                about = [f"`{_plain(cell.defense)}`"] if len(names) > 1 else []
                lines.append([*about, _attack(cell.attack), ", ".join(str(row.seed) for row in done), *values])
        if lines:
            tables.append(_written(heads, lines, own))
    return "\n\n".join(tables)


def detection_table(rows: Sequence[Row], defense: str | Sequence[str], setup: str | None = None) -> str:
    """Write how often detectors of target classes decided for the attack's class, over seeds and targets.

    A line holds all rows of a detector and an attack, whatever its target: ``badnets@target2`` counts as ``badnets``.

    Raises:
        ValueError: If there are no such rows.
    """
    heads = (
        "detector", "attack", "runs", "flagged", "exactly the attack's class", "most suspicious class right",
        "FD, median", "seconds, median",
    )  # fmt: skip
    tables = []
    for own in _chosen(rows, _names(defense), setup):
        found: dict[tuple[str, str], list[Row]] = {}
        for row in own.rows:
            decided = row.detection is not None or _of_any_stage(row, "target_found") is not None
            if decided and row.status == "done":
                found.setdefault((row.defense.name, row.attack.name.partition("@")[0]), []).append(row)
        lines = [
            [f"`{_plain(name)}`", _attack(attack), str(len(group)), *_decisions(group)]
            for (name, attack), group in found.items()
        ]
        tables.append(_written(heads, lines, own))
    return "\n\n".join(tables)


def headline(rows: Sequence[Row], setup: str, defenses: Sequence[str] = ()) -> str:
    """Write a line per defense of a setup, the best mean rank first, as the board's summary does.

    Args:
        rows: Rows, of which those of the setup count.
        setup: Its name.
        defenses: Only these, ranked among each other; by default all.

    Raises:
        ValueError: If there are no such rows.
    """
    chosen = [row for row in rows if not defenses or row.defense.name in defenses]
    found = [own for own in setups(chosen) if own.plain_name == setup]
    if not found:
        raise ValueError(f"Expected rows of the setup '{setup}', found none.")
    heads = ("defense", "data", "mean rank", "reached", "ACC drop", "clean model", "relapse", "time", "memory")
    table = []
    for line in lines(found[0]):
        rank = DASH if line["rank"] is None else f"{line['rank']} ({line['rank_note']})"
        cells = [f"`{_plain(line['name'])}`", ", ".join(line["notes"]) or DASH, rank]
        cells += [line[key] for key in ("reached", "drop", "harm")]
        table.append([*cells, " → ".join(line["relapse"]), line["seconds"], line["memory"]])
    return _written(heads, table, found[0])


def fill(text: str, rows: Sequence[Row]) -> str:
    """Write tables between their marks in a file's text.

    A mark ``<!-- KIND:WHAT -->`` holds what follows up to ``<!-- /KIND -->``. The kinds are ``table``
    (`method_table`), ``detection`` (`detection_table`), ``numbers`` (`numbers_table`) and ``headline``
    (`headline`). WHAT is ``NAME[,NAME][@SETUP]``, after it ``STAGE.METRIC[,STAGE.METRIC]`` for numbers; a headline
    has ``SETUP [NAME,NAME]``.
    """

    def write(match: re.Match[str]) -> str:
        what, _, more = match["what"].partition(" ")
        further = [part.strip() for part in more.split(",") if part.strip()]
        if match["kind"] == "headline":
            return f"{match['head']}\n{headline(rows, what, further)}\n<!-- /headline -->"
        names, setup = _split(what, rows)
        if match["kind"] == "numbers":
            written = numbers_table(rows, names, further, setup)
        else:
            written = (method_table if match["kind"] == "table" else detection_table)(rows, names, setup)
        return f"{match['head']}\n{written}\n<!-- /{match['kind']} -->"

    pattern = r"(?P<head><!-- (?P<kind>table|detection|numbers|headline):(?P<what>[^\n]+?) -->)\n.*?<!-- /(?P=kind) -->"
    return re.sub(pattern, write, text, flags=re.DOTALL)


def _names(defense: str | Sequence[str]) -> list[str]:
    return [defense] if isinstance(defense, str) else list(defense)


def _split(what: str, rows: Sequence[Row]) -> tuple[list[str], str | None]:
    """Tell ``NAME@SETUP`` from a defense that has an @ in its name, such as ``tac_stamps@given``."""
    names = [name.strip() for name in what.split(",")]
    last, at, setup = names[-1].rpartition("@")
    if not at or any(row.defense.name == names[-1] for row in rows):
        return names, None
    return [*names[:-1], last], setup


def _chosen(rows: Sequence[Row], names: Sequence[str], setup: str | None) -> list[Setup]:
    order = {name: place for place, name in enumerate(names)}
    mine = sorted((row for row in rows if row.defense.name in order), key=lambda row: order[row.defense.name])
    found = [own for own in setups(mine) if setup in (None, own.plain_name)]
    missing = set(names) - {row.defense.name for row in mine if setup in (None, row.setup)}
    if missing:
        where = f" in setup '{setup}'" if setup else ""
        raise ValueError(f"Expected rows of the defense '{min(missing)}'{where}, found none.")
    return found


def _written(heads: Sequence[str], lines: Sequence[Sequence[str]], setup: Setup) -> str:
    """Write a table and its caption; columns without a number are left out."""
    kept = [place for place in range(len(heads)) if any(set(line[place]) - set(f"{DASH} /→") for line in lines)]
    table = [[row[place] for place in kept] for row in (heads, *lines)]
    head, *body = ("| " + " | ".join(line) + " |" for line in table)
    return "\n".join([head, "|" + "---|" * len(kept), *body, "", _made_with(setup)])


def _decisions(rows: Sequence[Row]) -> list[str]:
    flagged = [row.detection.flagged for row in rows if row.detection and row.detection.flagged is not None]
    return [
        _count(flagged),
        _count([_of_any_stage(row, "target_found") for row in rows]),
        _count([_of_any_stage(row, "target_top") for row in rows]),
        _median([_of_any_stage(row, "feature_distance") for row in rows]),
        _median([own_seconds(row) for row in rows]),
    ]


def _count(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{sum(map(bool, known))} of {len(known)}" if known else DASH


def _median(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{statistics.median(known):.3g}" if known else DASH


def _metric(row: Row, name: str) -> float | None:
    stage, _, key = name.partition(".")
    value = row.metrics.get(stage, {}).get(key)
    return float(value) if isinstance(value, int | float) else None


def _of_any_stage(row: Row, key: str) -> float | None:
    values = [_metric(row, f"{stage}.{key}") for stage in row.metrics]
    return next((value for value in values if value is not None), None)


def _line(cell: Cell) -> list[str]:
    rows = [row for row in cell.rows if row.status == "done"]
    spread, measured = cell.spread(ASR), cell.measured(ASR)
    missing = [
        f"{row.seed} ({'not run' if row.status == 'missing' else row.status})" for row in cell.rows if row not in rows
    ]
    paper = next((row.reported for row in rows if row.reported), None)
    return [
        _attack(cell.attack),
        ", ".join([*(str(row.seed) for row in rows), *missing]),
        _each(rows, lambda row: row.before.asr),
        _each(rows, lambda row: row.after.asr),
        DASH if spread.median is None else f"{spread.median:.3f}",
        f"{cell.below(ASR)} of {len(measured)}" if measured else "did not take" if cell.untaken else DASH,
        _each(rows, lambda row: row.before.acc),
        _each(rows, lambda row: row.after.acc),
        _each(rows, lambda row: row.after.acc_target),
        _each(rows, lambda row: row.after.ra),
        f"{_each(rows, lambda row: row.control.acc)} / {_each(rows, lambda row: row.control.asr)}",
        DASH
        if paper is None
        else f"{_number(paper.value.get('acc'))} / {_number(paper.value.get('asr'))} ({_plain(paper.source)})",
    ]


def _each(rows: Sequence[Row], take: Callable[[Row], float | None]) -> str:
    values = [take(row) for row in rows]
    return ", ".join(map(_number, values)) if any(value is not None for value in values) else DASH


def _attack(name: str) -> str:
    return "clean model" if name == CLEAN else _plain(name)


def _number(value: float | None) -> str:
    return DASH if value is None else f"{value:.3f}"


def _made_with(setup: Setup) -> str:
    done = [row for row in setup.rows if row.status == "done"]
    seconds = [value for row in done if (value := own_seconds(row)) is not None]
    commits = Counter(f"{row.code.commit[:7]}{' (dirty)' if row.code.dirty else ''}" for row in done if row.code.commit)
    parts = [f"Setup `{_plain(setup.name)}`", *(f"`{row.command}`" for row in done[:1] if row.command)]
    more = f" and {len(commits) - _MOST_COMMITS} others" if len(commits) > _MOST_COMMITS else ""
    parts += [f"commit {', '.join(list(commits)[:_MOST_COMMITS])}{more}"] if commits else []
    parts += sorted({row.env.device for row in done if row.env.device})
    parts += [f"{duration(statistics.median(seconds))} (median of the defense's own stages)"] if seconds else []
    parts += sorted({flag for row in done for flag in row.flags})
    return "; ".join(parts) + "."


def _plain(text: str) -> str:
    return text.replace("|", r"\|").replace("\n", " ").replace("<", "&lt;")
