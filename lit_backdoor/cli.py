"""The command line: a light parser, so that ``--help`` needs no torch; ``fit``, ``test`` … go to LightningCLI."""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import re
import signal
import sys
import traceback
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from lit_backdoor import __version__
from lit_backdoor.completion import SHELLS, PrintCompletion
from lit_backdoor.memory import keep_memory
from lit_backdoor.outside import add_commands, folder, some
from lit_backdoor.signals import Stopped, end_children, listening, received

__all__ = ["main"]

_LIGHTNING = {  # passed on to LightningCLI
    "fit": "train one stage",
    "validate": "measure a checkpoint of a stage: --ckpt_path FILE",
    "test": "measure a bundle: --bundle DIR",
    "predict": "run a stage that trains nothing, such as a selection or a detector",
}
_NO_MEMORY = "can't allocate memory|out of memory"  # what torch says on a CPU and on a GPU
_LAST_WORDS = 5.0  # seconds that child processes have after a signal
_LISTED = ("setups", "attacks", "defenses", "chains", "grids", "stages", "datasets", "models")


def main(args: Sequence[str] | None = None) -> int:
    """Run the command line; gives the exit code.

    It is 0, 1 for a run that was stopped, 2 for wrong input, 128 + the number of a signal (130 on Ctrl-C).
    """
    if args is not None:  # inside another program, whose signals and memory are its own
        with _escaping():
            return _run(list(args))
    keep_memory()
    with listening(), _escaping():
        code = _run(sys.argv[1:])
        if received() is not None:
            end_children(_LAST_WORDS)
    return code


@contextlib.contextmanager
def _escaping() -> Iterator[None]:
    """Escape what a terminal cannot show, such as names of other encodings, instead of ending the program."""
    output = sys.stdout
    if not isinstance(output, io.TextIOWrapper):
        yield
        return
    errors = output.errors
    output.reconfigure(errors="backslashreplace")
    try:
        yield
    finally:
        output.reconfigure(errors=errors)


def _run(arguments: list[str]) -> int:
    try:
        if arguments and arguments[0] in _LIGHTNING:
            return _lightning(arguments)
        given = _parser().parse_args(arguments)
        return int(given.run(given))
    except Stopped as stop:
        return _stopped(stop, arguments)
    except SystemExit as stop:  # argparse and jsonargparse have printed what was wrong; Lightning exits on Ctrl-C
        if isinstance(stop.__context__, KeyboardInterrupt):
            return _fail("stopped.", 130)
        if isinstance(stop.__context__, BrokenPipeError):  # rich found that nobody reads the output
            return 128 + signal.SIGPIPE
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except KeyboardInterrupt:
        return _fail("stopped.", 130)
    except Exception as error:
        if (number := received()) is not None:  # such as a loader's process that the signal reached first
            return _stopped(Stopped(number), arguments)
        if isinstance(error, BrokenPipeError) and _is_unread():
            return 128 + signal.SIGPIPE
        return _report_gate(error) if arguments[:1] == ["audit"] else _report(error)


def _is_unread() -> bool:
    """Say whether nobody reads the output any more, as of ``lit-backdoor list | head -1``; if so, it is dropped."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return True
    return False


def _report_gate(error: Exception) -> int:
    """Report an error of a command whose 1 is a verdict: whatever it is, the code is 2."""
    try:
        _report(error)
    except Exception:
        traceback.print_exc()
    return 2


def _stopped(stop: Stopped, arguments: list[str]) -> int:
    """Say how to go on; the first process of several speaks and gives the code."""
    if os.environ.get("LOCAL_RANK", "0") not in ("", "0"):
        return 0  # any other code would make Lightning kill the first process
    if arguments[:1] == ["fit"]:
        how = (
            f"To go on from its last finished epoch, give the same command with --ckpt_path '{stop.checkpoint}'."
            if stop.checkpoint
            else "No checkpoint of a finished epoch was written; the same command starts anew."
        )
    elif arguments[:1] in (["chain"], ["demo"], ["purify"]) and "--dry-run" not in arguments:
        how = f"To go on from the last finished epoch, run lit-backdoor {arguments[0]} … again with the same --out."
    else:
        how = "Give the same command again."
    return _fail(f"stopped by {signal.Signals(stop.number).name}. {how}", 128 + stop.number)


def _report(error: Exception) -> int:
    """Say in one line what a person can mend; anything else is a bug and keeps its traceback."""
    import pickle

    from lightning.fabric.utilities.exceptions import MisconfigurationException

    from lit_backdoor.errors import DivergedError, RunStoppedError, first_lines
    from lit_backdoor.refusals import one_line

    if os.environ.get("LIT_BACKDOOR_TRACEBACK"):
        raise error
    text = str(error)
    if isinstance(error, pickle.UnpicklingError):
        from lit_backdoor.weights import refusal

        return _fail(refusal(text))
    if isinstance(error, RuntimeError) and text.startswith("Error(s) in loading state_dict"):
        return _fail(f"The checkpoint's weights do not fit the net of this configuration: {first_lines(text)}")
    if isinstance(error, EOFError) or (isinstance(error, RuntimeError) and "PytorchStreamReader" in text):
        return _fail(f"The checkpoint is empty or was cut off; it cannot be read. {first_lines(text)}".rstrip())
    if isinstance(error, RuntimeError) and ("PytorchStreamWriter" in text or "iostream error" in text):
        return _fail(f"Could not write a checkpoint; is the disk full? ({text.splitlines()[0]})")
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and re.search(_NO_MEMORY, text)):
        return _fail(f"There is not enough memory: take smaller images, nets or batches. {first_lines(text)}".rstrip())
    if isinstance(error, RuntimeError) and text.startswith("Early stopping conditioned on metric"):
        return _fail(text)
    if isinstance(error, ValueError | OSError | MisconfigurationException | DivergedError | RunStoppedError):
        text = one_line(text) if "\n" in text else text
        return _fail(text, 1 if isinstance(error, DivergedError | RunStoppedError) else 2)
    raise error


def _fail(text: str, code: int = 2) -> int:
    sys.stderr.write(f"lit-backdoor: {text}\n")
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="lit-backdoor",
        allow_abbrev=False,
        description="Backdoor attacks on image classifiers, and defenses against them.",
        epilog="Start with: lit-backdoor demo. Each command says more: lit-backdoor chain --help.",
    )
    parser.add_argument("--version", action="version", version=f"lit-backdoor {__version__}")
    parser.add_argument(
        "--print-completion", choices=SHELLS, action=PrintCompletion, help="print the completion script of a shell"
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    demo = commands.add_parser(
        "demo", allow_abbrev=False, help="ATClean on embedded traffic signs, in minutes on a CPU"
    )
    demo.set_defaults(
        run=_chain, name="demo", setup=None, attack=None, data=None, settings=[], trust=[], launcher=None,
        no_cache=True, trust_cache=False, dry_run=False, until=None, relapse=False, no_report=False,
    )  # fmt: skip
    chain = commands.add_parser(
        "chain",
        allow_abbrev=False,
        help="run a defense against an attack, or any chain of stages",
        epilog="For example: lit-backdoor chain pgbd_stamps --setup cifar10_small --attack blend --seed 2",
    )
    chain.set_defaults(run=_chain)
    named: dict[str, Any] = {"metavar": "NAME|FILE", "type": some}
    chain.add_argument("name", **named, help="a defense or a chain (lit-backdoor list), or a YAML file")
    chain.add_argument("--setup", **named, help="data, net and victim; default signs, without a download")
    chain.add_argument("--attack", **named, help="default badnets; null for a clean model")
    chain.add_argument("--data", metavar="DIR", type=some, help="your images: class folders in DIR/train and DIR/test")
    for command in (demo, chain):
        command.add_argument("--out", metavar="DIR", type=folder, help="folder to write; default one in runs")
        command.add_argument("--seed", metavar="N", type=int, help="seed of split, poison plan, weights and order")
    chain.add_argument(
        "--set",
        dest="settings",
        metavar="a.b.c=value",
        action="append",
        default=[],
        help="set a key of the chain; may be given several times",
    )
    chain.add_argument(
        "--trust",
        metavar="MODULE",
        action="append",
        default=[],
        help="a package or module that bundles may name",
    )
    chain.add_argument(
        "--launcher", metavar="COMMAND", help='start stages on several devices: "torchrun --nproc-per-node 8", "srun …"'
    )
    chain.add_argument("--no-cache", action="store_true", help="train victims anew instead of taking cached ones")
    chain.add_argument("--trust-cache", action="store_true", help="take results of other versions of the code as well")
    chain.add_argument("--dry-run", action="store_true", help="check everything and print the plan")
    chain.add_argument("--until", metavar="STAGE", type=some, help="run this stage and what it needs, no more")
    chain.add_argument("--relapse", action="store_true", help="tune the cleaned suspect on: does the backdoor return?")
    chain.add_argument("--no-report", action="store_true", help="write no report, and validate nothing for its curves")

    grid = commands.add_parser(
        "grid",
        help="run setups x attacks x defenses x seeds, sharing what they have in common",
        epilog="For example: lit-backdoor grid laptop --dry-run",
        allow_abbrev=False,
    )
    grid.set_defaults(run=_grid)
    grid.add_argument("name", **named, help="a shipped grid (lit-backdoor list grids) or a YAML file")
    grid.add_argument("--engine", choices=("inline", "ray", "slurm"), default="inline", help="default inline")
    grid.add_argument("--address", metavar="HOST:PORT", help="with --engine ray: a running cluster, or auto")
    grid.add_argument("--out", metavar="DIR", type=folder, help="folder to write; default runs/grid-NAME")
    grid.add_argument("--retries", metavar="N", type=int, default=1, help="further tries of a failed run; default 1")
    grid.add_argument("--dry-run", action="store_true", help="print what is to run, cached and blocked, and the hours")

    cache = commands.add_parser("cache", help="results that later runs can use again: list them, or remove some")
    kept = cache.add_subparsers(title="commands", required=True, metavar="COMMAND")
    kept.add_parser("list", help="stages, sizes, ages").set_defaults(run=_cache_list)
    prune = kept.add_parser(
        "prune",
        help="remove some",
        epilog="For example: lit-backdoor cache prune --older-than 30d",
        allow_abbrev=False,
    )
    prune.set_defaults(run=_cache_prune)
    prune.add_argument("--older-than", metavar="AGE", help="not used for so long: 90m, 12h, 30d")
    prune.add_argument("--larger-than", metavar="SIZE", help="the oldest, until the rest is no larger: 500MB, 20GB")
    prune.add_argument("--unreachable-from", metavar="GRID", nargs="+", help="those that none of these grids uses")
    prune.add_argument("--dry-run", action="store_true", help="only say what would be removed")

    board = commands.add_parser(
        "board",
        allow_abbrev=False,
        help="one page about the results of grids and chains, with CSV, LaTeX and YAML",
        epilog="For example: lit-backdoor board runs/laptop --out board",
    )
    board.set_defaults(run=_board)
    board.add_argument(
        "folders", metavar="DIR", nargs="+", type=folder, help="folders of grids or chains, or rows.jsonl"
    )
    board.add_argument(
        "--out", metavar="DIR", type=folder, default=Path("board"), help="folder to write; default board"
    )

    add_commands(commands)

    listing = commands.add_parser("list", allow_abbrev=False, help="what there is: " + ", ".join(_LISTED))
    listing.set_defaults(run=_list)
    listing.add_argument("what", nargs="?", choices=(*_LISTED, "defense"), help="one of them; all without it")
    listing.add_argument("name", nargs="?", help="with defense: the one to describe")

    for name, text in _LIGHTNING.items():
        commands.add_parser(name, help=text, add_help=False)
    return parser


def _lightning(arguments: list[str]) -> int:
    """Hand a subcommand to LightningCLI; ``--bundle DIR`` stands for the evaluation that fits it."""
    from lit_backdoor.chain.launch import keep_lock_from_children
    from lit_backdoor.lightning_cli import BackdoorCLI, with_bundle

    sys.path.append(str(Path.cwd()))  # where modules of one's own lie
    warnings.filterwarnings("ignore", ".*LightningCLI's args parameter.*")  # they are the command line's own
    keep_lock_from_children()
    BackdoorCLI(with_bundle(arguments))
    return 0


def _chain(given: argparse.Namespace) -> int:
    sys.path.append(str(Path.cwd()))  # where modules lie that a chain of one's own names
    from lit_backdoor.chain.command import chain_command

    return chain_command(given)


def _board(given: argparse.Namespace) -> int:
    from lit_backdoor.board import gather, write_board

    page = write_board(gather(given.folders), given.out, given.folders[0].resolve().name)
    sys.stdout.write(f"board    {page}\n")
    return 0


def _grid(given: argparse.Namespace) -> int:
    from lit_backdoor.chain.grid.command import grid_command

    return grid_command(given)


def _cache_list(given: argparse.Namespace) -> int:
    from lit_backdoor.chain.prune import print_store

    print_store()
    return 0


def _cache_prune(given: argparse.Namespace) -> int:
    from lit_backdoor.chain.prune import prune

    prune(given.older_than, given.larger_than, given.unreachable_from, dry_run=given.dry_run)
    return 0


def _list(given: argparse.Namespace) -> int:
    from lit_backdoor.chain.listing import print_defense, print_list

    if given.what == "defense" and given.name:
        print_defense(given.name)
    elif given.what == "defense" or given.name:
        raise ValueError("Expected a name after 'lit-backdoor list defense', and nowhere else. See: lit-backdoor list.")
    else:
        print_list([given.what] if given.what else list(_LISTED))
    return 0
