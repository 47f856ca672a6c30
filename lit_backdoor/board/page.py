"""Writing of the board: the page, its exports and the rows that it is about."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from lit_backdoor.board.exports import every_eval_ever, latex, model_index, table
from lit_backdoor.board.rows import Row, write_rows
from lit_backdoor.board.sections.costs import costs
from lit_backdoor.board.sections.detectors import detectors
from lit_backdoor.board.sections.maps import asr_map, drop_map, numbers
from lit_backdoor.board.sections.planes import planes
from lit_backdoor.board.sections.runs import about, runs
from lit_backdoor.board.sections.summary import summary
from lit_backdoor.board.sections.verdict import verdict
from lit_backdoor.board.template import Board, Section, render
from lit_backdoor.disk import claim

__all__ = ["SECTIONS", "write_board"]

# A new view is one more function here, in the order of the page.
SECTIONS: tuple[Callable[[Board], Section | None], ...] = (
    verdict, summary, asr_map, drop_map, planes, detectors, costs, numbers, runs, about,
)  # fmt: skip
_EXPORTS = {
    "board.csv": table,
    "board.tex": latex,
    "model-index.yaml": model_index,
    "every_eval_ever.jsonl": every_eval_ever,
}


def write_board(rows: Sequence[Row], out: Path, title: str = "board") -> Path:
    """Write ``index.html``, which needs no network, its exports and ``rows.jsonl``.

    Equal rows give equal files, but for the time in ``every_eval_ever.jsonl``.

    Args:
        rows: At least one.
        out: Folder to write.
        title: What the page is called.

    Returns:
        The path of the page.

    Raises:
        ValueError: If there are no rows, or the folder holds what is no board.
    """
    if not rows:
        raise ValueError("Expected at least one row for a board, got none. Run a grid: lit-backdoor grid laptop.")
    if (out / "rows.jsonl").is_file() and not (out / "index.html").is_file():
        raise ValueError(f"Expected --out to be a folder of its own, got {out}, the folder of a grid.")
    claim(out)
    board = Board(tuple(rows))
    sections = [section for make in SECTIONS if (section := make(board)) is not None]
    write_rows(rows, out / "rows.jsonl")
    for name, export in _EXPORTS.items():
        _write(out / name, export(rows))
    return _write(out / "index.html", render("board.html", board=board, sections=sections, title=title))


def _write(target: Path, text: str) -> Path:
    part = target.with_name(f".{target.name}.part")
    part.write_text(text, encoding="utf-8", errors="xmlcharrefreplace")
    part.replace(target)
    return target
