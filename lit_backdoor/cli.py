"""The command line: a light parser, so that ``--help`` needs no torch; ``fit``, ``test`` … go to LightningCLI."""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

from lit_backdoor import __version__

__all__ = ["main"]

_LIGHTNING = {  # handed on to LightningCLI
    "fit": "train one stage",
    "validate": "measure a checkpoint of a stage: --ckpt_path FILE",
    "test": "measure what a stage left: --bundle DIR",
    "predict": "run a stage that trains nothing, such as a selection or a detector",
}
_LISTED = ("attacks", "defenses", "stages", "datasets", "models", "chains")


def main(args: Sequence[str] | None = None) -> int:
    """Run the command line; gives the exit code: 0, 1 for a run that was stopped, 2 for wrong input, 130 on Ctrl-C."""
    arguments = list(sys.argv[1:] if args is None else args)
    try:
        if arguments and arguments[0] in _LIGHTNING:
            return _lightning(arguments)
        given = _parser().parse_args(arguments)
        return int(given.run(given))
    except SystemExit as stop:  # argparse and jsonargparse have printed what was wrong; Lightning exits on Ctrl-C
        if isinstance(stop.__context__, KeyboardInterrupt):
            return _fail("stopped.", 130)
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except KeyboardInterrupt:
        return _fail("stopped.", 130)
    except Exception as error:
        return _report(error)


def _report(error: Exception) -> int:
    """Say in one line what a person can mend; anything else is a bug and keeps its traceback."""
    import pickle

    from lightning.fabric.utilities.exceptions import MisconfigurationException

    from lit_backdoor.errors import DivergedError, RunStoppedError, first_lines

    if os.environ.get("LIT_BACKDOOR_TRACEBACK"):
        raise error
    text = _plain(str(error))
    if isinstance(error, pickle.UnpicklingError):
        from lit_backdoor.weights import refusal

        return _fail(refusal(text))
    if isinstance(error, RuntimeError) and text.startswith("Error(s) in loading state_dict"):
        return _fail(f"The checkpoint's weights do not fit the net of this configuration: {first_lines(text)}")
    if isinstance(error, EOFError) or (isinstance(error, RuntimeError) and "PytorchStreamReader" in text):
        return _fail(f"The checkpoint is empty or was cut off; it cannot be read. {first_lines(text)}")
    if isinstance(error, RuntimeError) and ("PytorchStreamWriter" in text or "iostream error" in text):
        return _fail(f"Could not write a checkpoint; is the disk full? ({text.splitlines()[0]})")
    if isinstance(error, RuntimeError) and text.startswith("Early stopping conditioned on metric"):
        return _fail(text)
    if isinstance(error, ValueError | OSError | MisconfigurationException | DivergedError | RunStoppedError):
        return _fail(text, 1 if isinstance(error, DivergedError | RunStoppedError) else 2)
    raise error


def _plain(text: str) -> str:
    """Pick what our classes said out of a parser's message about types that did not fit."""
    said = [line.strip(" -") for line in text.splitlines() if line.strip(" -").startswith(("Expected ", "Unknown "))]
    ours = [line for line in said if not line.startswith(("Expected a <class", "Expected a typing."))]
    return ours[0] if "Does not validate" in text and ours else text


def _fail(text: str, code: int = 2) -> int:
    sys.stderr.write(f"lit-backdoor: {text}\n")
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="lit-backdoor",
        description="Backdoor attacks on image classifiers, and defenses against them.",
        epilog="Start with: lit-backdoor demo. Each command says more: lit-backdoor chain --help.",
    )
    parser.add_argument("--version", action="version", version=f"lit-backdoor {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    demo = commands.add_parser("demo", help="ATClean on embedded traffic signs, in minutes on a CPU")
    demo.set_defaults(
        run=_chain, name="demo", settings=[], launcher=None, no_cache=True, trust_cache=False, dry_run=False
    )
    chain = commands.add_parser(
        "chain",
        help="run a chain of stages, by name or file",
        epilog="For example: lit-backdoor chain atclean_cifar10_small --set data.init_args.attack=blend --seed 2",
    )
    chain.set_defaults(run=_chain)
    chain.add_argument("name", metavar="NAME|FILE", help="a shipped chain (lit-backdoor list chains) or a YAML file")
    for command in (demo, chain):
        command.add_argument("--out", metavar="DIR", type=Path, help="folder to write; default runs/NAME-seedN")
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
        "--launcher", metavar="COMMAND", help='start stages on several devices: "torchrun --nproc-per-node 8", "srun …"'
    )
    chain.add_argument("--no-cache", action="store_true", help="train victims anew instead of taking cached ones")
    chain.add_argument("--trust-cache", action="store_true", help="take results of other versions of the code as well")
    chain.add_argument("--dry-run", action="store_true", help="check everything and print the plan")

    importing = commands.add_parser(
        "import",
        help="make a suspect of somebody else's model",
        epilog="For example: lit-backdoor import model.pth --size 32 --out suspect",
    )
    importing.set_defaults(run=_import)
    importing.add_argument(
        "model", metavar="MODEL", help="a file of weights, a folder of timm or the Hub, or a bundle; it runs no code"
    )
    importing.add_argument("--out", metavar="DIR", required=True, help="folder of the bundle to write")
    importing.add_argument(
        "--arch", metavar="NAME", help="timm:NAME, torchvision:NAME or your own module.function; default: found"
    )
    importing.add_argument("--classes", metavar="N|FILE", help="number of classes, or a file with a name on each line")
    importing.add_argument("--size", metavar="N", type=int, help="side of the images in pixels")
    importing.add_argument("--mean", metavar="X", type=float, nargs="+", help="mean of each channel")
    importing.add_argument("--std", metavar="X", type=float, nargs="+", help="standard deviation of each channel")
    importing.add_argument("--split", metavar="LAYER", help="layer that ends the features; default: found")
    importing.add_argument("--part", metavar="PLACE", help="place of the weights in the file, such as ema.module")

    listing = commands.add_parser("list", help="what there is: " + ", ".join(_LISTED))
    listing.set_defaults(run=_list)
    listing.add_argument("what", nargs="?", choices=_LISTED, help="one of them; all without it")

    for name, text in _LIGHTNING.items():
        commands.add_parser(name, help=text, add_help=False)
    return parser


def _lightning(arguments: list[str]) -> int:
    """Hand a subcommand to LightningCLI; ``--bundle DIR`` stands for the evaluation that fits it."""
    from lit_backdoor.lightning_cli import BackdoorCLI, with_bundle

    warnings.filterwarnings("ignore", ".*LightningCLI's args parameter.*")  # they are the command line's own
    BackdoorCLI(with_bundle(arguments))
    return 0


def _chain(given: argparse.Namespace) -> int:
    from lit_backdoor.chain.command import run_chain

    return run_chain(given)


def _import(given: argparse.Namespace) -> int:
    from lit_backdoor.chain.importing import run_import

    return run_import(given)


def _list(given: argparse.Namespace) -> int:
    from lit_backdoor.chain.listing import print_list

    print_list([given.what] if given.what else list(_LISTED))
    return 0
