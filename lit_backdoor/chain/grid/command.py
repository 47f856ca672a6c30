"""``lit-backdoor grid``: read, plan, run, collect the rows."""

from __future__ import annotations

import argparse
import contextlib
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from lit_backdoor.chain.compose import compose
from lit_backdoor.chain.grid.cells import GridFile, read_grid
from lit_backdoor.chain.grid.graph import Node, connect
from lit_backdoor.chain.grid.methods import reported_of
from lit_backdoor.chain.grid.plan import make_plan
from lit_backdoor.chain.store import Store
from lit_backdoor.disk import check_claim, claim
from lit_backdoor.errors import one_of

if TYPE_CHECKING:
    from lit_backdoor.board.rows import Row

__all__ = ["grid_command", "run_grid"]

ENGINES = ("inline", "ray", "slurm")


def run_grid(
    name: str,
    *,
    engine: str = "inline",
    out: str | Path | None = None,
    retries: int = 1,
    address: str | None = None,
    say: Callable[[str, int], None] = lambda line, over: None,
) -> list[Row]:
    """Run a grid and give its rows, those of failed cells included; ``OUT/rows.jsonl`` holds them, too.

    Args:
        name: A shipped grid or a YAML file.
        engine: ``inline`` (one run after another) or ``ray``; ``slurm`` only writes ``OUT/slurm/submit.sh``.
        out: Folder to write; None for one in ``runs``. Cells lie in ``OUT/cells``, each with its ``results.json``.
        retries: How often a run that failed is tried again.
        address: A running Ray cluster; None starts one on this machine.
        say: Called with a line at each change, and with the number of runs that are over.

    Raises:
        ValueError: If the grid, the engine or the store cannot be used; nothing has run then.
    """
    file = read_grid(name)
    folder = Path(out or Path("runs") / f"grid-{file.name}")
    _check(file, folder, engine, retries, address)
    return _run_file(file, connect(file.cells), folder, Store(), engine, retries, address, say)


def grid_command(given: argparse.Namespace) -> int:
    """Run the grid that the command line asks for; gives the exit code, 1 if a node failed."""
    console = Console(highlight=False, markup=False, emoji=False)
    with warnings.catch_warnings(record=True) as remarks:
        warnings.simplefilter("always")
        file = read_grid(given.name)
    for remark in remarks:
        console.print(f"warning: {remark.message}", soft_wrap=True)
    folder = given.out or Path("runs") / f"grid-{file.name}"
    _check(file, folder, given.engine, given.retries, given.address)
    nodes, store = connect(file.cells), Store()
    plan = make_plan(nodes, folder, store)
    for line in plan.lines() if given.dry_run else plan.lines()[-1:]:
        console.print(line, soft_wrap=True)
    if given.dry_run:
        _check_chains(file)
        return 0
    with _bar(console, len(plan.wanted)) as say:
        rows = _run_file(file, nodes, folder, store, given.engine, given.retries, given.address, say)
    count = sum(row.status == "done" for row in rows)
    console.print(f"rows     {folder / 'rows.jsonl'} ({count} of {len(rows)} cells done)", soft_wrap=True)
    return int(any(row.status in ("failed", "blocked") for row in rows))


def _check(file: GridFile, folder: Path, engine: str, retries: int, address: str | None) -> None:
    """Check what a run of a grid needs, before anything runs or is written."""
    one_of("engine", engine, ENGINES)
    if retries < 0:
        raise ValueError(f"Expected --retries of 0 or more, got {retries}.")
    if address is not None and engine != "ray":
        raise ValueError(f"Expected --address with --engine ray, got it with {engine}.")
    check_claim(folder)
    for cell in file.cells:
        reported_of(cell)


def _check_chains(file: GridFile) -> None:
    """Check the classes and the arguments of each chain; cells that differ in their seed alone have the same."""
    from lit_backdoor.chain.fill import check  # needs torch, as a plan does not

    chains = {(cell.setup, cell.attack, cell.defense, cell.settings): cell for cell in file.cells}
    for cell in chains.values():
        try:
            check(compose(cell.defense, cell.settings, cell.seed, setup=cell.setup, attack=cell.attack))
        except ValueError as error:
            raise ValueError(f"Cell {cell.name} of the grid: {error}") from error


def _run_file(
    file: GridFile,
    nodes: Sequence[Node],
    folder: Path,
    store: Store,
    engine: str,
    retries: int,
    address: str | None,
    say: Callable[[str, int], None],
) -> list[Row]:
    """Run a grid that was read; gives its rows."""
    from lit_backdoor.chain.grid.rows import collect_rows
    from lit_backdoor.chain.launch import locked

    store.create()
    claim(folder)
    with locked(folder):
        plan = make_plan(nodes, folder, store)
        failed: dict[str, str] = {}
        try:
            if plan.wanted:
                failed = _run(plan.wanted, folder, store, engine, retries, address, say)
        finally:
            rows = collect_rows(nodes, folder, store, failed)
        return rows


def _run(
    nodes: Sequence[Node], out: Path, store: Store, name: str, retries: int, address: str | None, say: Any
) -> dict[str, str]:
    """Run nodes by an engine; gives why some of them failed."""
    from lit_backdoor.chain.grid.driver import Driver, task_of

    if name == "slurm":
        from lit_backdoor.chain.engines.slurm import write_script

        made_by = {node.name: store.folder.absolute() / "stages" / node.identity for node in nodes}
        needs = {node.name: {need: made_by[need] for need in node.needs if need in made_by} for node in nodes}
        script = write_script([task_of(node, out, store) for node in nodes], needs, out.absolute() / "slurm")
        say(f"to submit {len(nodes)} runs: sh {script}; then the same grid again collects the rows", len(nodes))
        return {}
    driver = Driver(nodes, out, store, retries, say)
    engine = _engine(name, address)
    try:
        driver.run(engine)
    finally:
        engine.stop()
    return driver.failed


def _engine(name: str, address: str | None) -> Any:
    if name == "ray":
        from lit_backdoor.chain.engines.on_ray import Ray

        return Ray(address)
    from lit_backdoor.chain.engines.inline import Inline

    return Inline()


@contextlib.contextmanager
def _bar(console: Console, total: int) -> Iterator[Callable[[str, int], None]]:
    """Print a line per change, above a bar if this is a terminal."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal or not total) as progress:
        bar = progress.add_task("runs", total=total)

        def say(line: str, over: int) -> None:
            progress.console.print(line, soft_wrap=True)
            progress.update(bar, completed=over)

        yield say
